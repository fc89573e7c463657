"""Chains of relays: the original neurons' spikes and membranes are those of the unlimited network."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import inputs_for

import delaynet_lava
from delaynet_lava.cli import main
from delaynet_lava.errors import InputError
from delaynet_lava.export import RuleBroken, export_netx
from delaynet_lava.export.relay import relay
from delaynet_lava.formats import netx
from delaynet_lava.formats.model_file import ModelFile, save_model
from delaynet_lava.hw_profiles import load_profile
from delaynet_lava.hw_profiles.rules import check
from delaynet_lava.network import Dense, Encoder, Network, Neuron, Synapse
from delaynet_lava.trace import Trace, decide

STEPS = 700
READOUT = 131071


def random_synapse(rng, post: int, pre: int, exponent: int, kind: str, longest: int) -> Synapse:
    weight = 2 * rng.integers(-60, 100, (post, pre)) * (rng.random((post, pre)) < 0.7)
    delay = {
        "none": np.zeros((post, pre), int),
        "axonal": np.tile(rng.integers(0, longest, pre, endpoint=True), (post, 1)),
        "dendritic": np.tile(rng.integers(0, longest, post, endpoint=True), (pre, 1)).T,
        "synaptic": rng.integers(0, longest, (post, pre), endpoint=True),
    }[kind]
    return Synapse(weight, delay, exponent)


def late_network(seed: int, longest: int) -> Network:
    """A network that relays can serve, with delays of every kind up to ``longest``; it spikes."""
    rng = np.random.default_rng(seed)
    draw = lambda low, high: int(rng.integers(low, high, endpoint=True))  # noqa: E731
    kind = lambda: str(rng.choice(["none", "axonal", "dendritic", "synaptic"], p=[0.1, 0.3, 0.3, 0.3]))  # noqa: E731
    pre = draw(1, 6)
    layers: list = [Encoder(Neuron(30, 4096, 800), pre)] if draw(0, 4) == 0 else []
    for k in range(draw(1, 2)):
        size, exponent = draw(2, 6), draw(0, 1)
        late = kind() if draw(0, 1) else "none"
        # A channel can't be copied: where it has a chain, the threshold stays below one weight.
        outside = late != "none" and (k == 0 or isinstance(layers[-1], Encoder))
        reset = str(rng.choice(["zero", "subtract"]))
        neuron = Neuron(
            vth=draw(40, 250 << exponent if outside else 900),
            du=4096,
            dv=draw(500 if reset == "subtract" else 0, 4096),
            bias=rng.integers(-9, 60, size),
            reset=reset,
        )
        back = random_synapse(rng, size, size, exponent if outside else draw(0, 1), kind(), longest)
        forward = random_synapse(rng, size, pre, exponent, late, longest)
        layers.append(Dense(forward, neuron, back if draw(0, 2) else None))
        pre = size
    readout = Neuron(READOUT, draw(0, 4096), draw(1, 4096))
    return Network((*layers, Dense(random_synapse(rng, 2, pre, 0, kind(), longest), readout)))


def run(network: Network, seed: int = 0, rate: float = 0.3) -> Trace:
    inputs = inputs_for(network, STEPS, 1, rate, seed)
    return delaynet_lava.emulate(network, inputs, ("spikes", "voltage"))


def differing(network: Network, trace: Trace, other: Trace) -> int:
    """Integers of the original neurons that differ, over every layer and step."""
    count = 0
    for k, layer in enumerate(network.layers):
        for name in ("spikes", "voltage"):
            one, two = getattr(trace, name)[k], getattr(other, name)[k][:, :, : layer.size]
            assert one.shape == two.shape
            count += int(np.count_nonzero(one != two))
    return count


def formula(network: Network, delay_max: int) -> int:
    """Neurons that relays cost, counted sender by sender from the text of the module."""
    longest, total = delay_max + 1, 0

    def hops(synapse: Synapse | None, sender: int) -> int:
        if synapse is None:
            return 1
        delays = synapse.delay[synapse.weight[:, sender] != 0, sender]
        lags = [int(d) + 1 for d in delays]
        return math.ceil(max(lags, default=1) / longest)

    for k, layer in enumerate(network.layers[:-1]):
        if isinstance(layer, Encoder):
            continue
        heads = network.layers[:k]
        outside = range(layer.synapse.shape[1]) if not heads or isinstance(heads[-1], Encoder) else ()
        entering = [h for c in outside if (h := hops(layer.synapse, c)) > 1]
        after = network.layers[k + 1].synapse
        senders = [h for j in range(layer.size) if (h := max(hops(layer.recurrent, j), hops(after, j))) > 1]
        if layer.recurrent is not None:
            exponent = layer.recurrent.weight_exp
        else:
            free = [e for e in range(8) if layer.neuron.vth < 254 << e]
            exponent = layer.synapse.weight_exp if entering else free[0]
        m = layer.neuron.vth // (254 << exponent) + 1
        total += sum(m * (h - 1) for h in senders) + sum(1 + m * (h - 2) for h in entering)
    return total


@settings(max_examples=100)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([61, 62, 63, 125, 126, 300, 500, 500]),
    st.sampled_from([62, 62, 40, 7]),
)
def test_the_original_neurons_do_the_same_at_every_step(seed, longest, delay_max):
    network = late_network(seed, longest)
    legal, report = relay(network, delay_max)
    synapses = [s for layer in legal.layers for s in (layer.synapse, layer.recurrent) if s is not None]
    assert max(s.max_delay for s in synapses) <= delay_max
    one, two = run(network, seed % 9), run(legal, seed % 9)
    assert differing(network, one, two) == 0
    assert np.array_equal(decide(network, one), decide(legal, two))
    grown = sum(a.size - b.size for a, b in zip(legal.layers, network.layers, strict=True))
    assert grown == report.added == formula(network, delay_max)


def dense(
    weight: int = 60,
    delay: int = 99,
    exponent: int = 0,
    size: int = 4,
    back: bool = True,
    into: int = 0,
    **neuron,
) -> Network:
    """Two channels, ``size`` neurons that excite each other late, a readout."""
    rng = np.random.default_rng(5)
    neuron = {"vth": 100, "du": 4096, "dv": 300} | neuron
    recurrent = Synapse(np.full((size, size), weight), np.full((size, size), delay), exponent)
    hidden = Dense(
        Synapse(2 * rng.integers(20, 120, (size, 2)), np.full((size, 2), into)),
        Neuron(**neuron),
        recurrent if back else None,
    )
    out = Synapse(2 * rng.integers(-50, 50, (2, size)), np.full((2, size), 0 if back else delay))
    return Network((hidden, Dense(out, Neuron(READOUT, 4096, 100))))


def test_the_comparison_notices_what_a_wrong_relay_would_do():
    """Negative control: a clamped delay, a lag off by one, a missing copy, a weight one word short."""
    network = dense(vth=600)
    legal, report = relay(network)
    assert (report.layers[0].parallel, report.added) == (3, 12)
    right = run(network, rate=0.4)
    assert right.spike_counts[0].sum() > 50
    assert differing(network, right, run(legal, rate=0.4)) == 0
    hidden, back = legal.layers[0], legal.layers[0].recurrent

    def changed(weight=back.weight, delay=back.delay) -> Network:
        layer = replace(hidden, recurrent=Synapse(weight, delay, back.weight_exp))
        return legal.with_(layers=(layer, legal.layers[1]))

    clamped = replace(network.layers[0], recurrent=Synapse(network.layers[0].recurrent.weight, 62))
    late, short, cut = back.delay.copy(), back.weight.copy(), back.weight.copy()
    first = (slice(0, 4), slice(4, None))
    late[first] += (back.weight[first] != 0).astype(late.dtype)
    post, pre = np.argwhere(back.weight[12:] != 0)[0] + (12, 0)
    short[post, pre] -= 2
    cut[:, 4] = 0
    for wrong in (
        network.with_(layers=(clamped, network.layers[1])),
        changed(delay=late),
        changed(weight=short),
        changed(weight=cut),
    ):
        assert differing(network, right, run(wrong, rate=0.4)) > 0


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("vth", [253, 254, 255, 507, 508, 1000])
def test_thresholds_about_the_largest_weight(reset, vth):
    """A spike in every step, in no step and in bursts, where one weight is just enough or just not."""
    network = dense(vth=vth, reset=reset, delay=300, dv=120)
    legal, report = relay(network)
    assert report.layers[0].parallel == vth // 254 + 1
    spikes = 0
    for rate in (0.05, 0.6, 1.0):
        one, two = run(network, 1, rate), run(legal, 1, rate)
        assert differing(network, one, two) == 0
        spikes += one.spike_counts[0].sum()
    assert spikes > 100


def test_relays_obey_the_chip_and_the_file_holds_them(tmp_path):
    network = dense(delay=400, into=70, vth=250)
    chip = load_profile("loihi2")
    assert {f.rule for f in check(network, chip)} == {"delay-range"}
    legal, report = relay(network, chip.get("delay_max"))
    assert check(legal, chip) == []
    netx.write(legal, tmp_path / "net.h5")
    assert differing(network, run(network), run(netx.read(tmp_path / "net.h5"))) == 0
    # 4 senders of 7 hops, 2 channels of 2; one weight of 254 is enough for a threshold of 250.
    assert report.added == 4 * 6 + 2
    assert report.as_dict()["added_neurons"] == 26
    assert "26 neurons added to 4 (26 relays, 0 copies; 6 chains of up to 7 hops" in next(report.lines())


def test_channels_and_neurons_share_a_layer_where_one_weight_is_enough_for_channels_only():
    """Input weights reach 508, recurrent ones 254: m = 2, and 1 + 2 (h - 2) for a channel of h hops."""
    network = dense(vth=300, delay=130)
    hidden = network.layers[0]
    late = Synapse(hidden.synapse.weight // 4 * 2, np.tile([[200, 70]], (4, 1)), 1)
    network = network.with_(layers=(replace(hidden, synapse=late), network.layers[1]))
    legal, report = relay(network)
    assert report.added == formula(network, 62) == 4 * 2 * 2 + (1 + 2 * 2) + 1
    one = run(network, rate=0.6)
    assert one.spike_counts[0].sum() > 50
    assert differing(network, one, run(legal, rate=0.6)) == 0


def test_a_layer_without_recurrence_gets_the_exponent_that_needs_no_copies():
    legal, report = relay(dense(back=False, vth=3000, delay=130))
    assert (report.layers[0].copies, report.layers[0].relays) == (0, 8)
    assert legal.layers[0].recurrent.weight_exp == 4
    network = dense(back=False, vth=3000, delay=130)
    assert differing(network, run(network, rate=0.5), run(legal, rate=0.5)) == 0


def test_short_delays_change_nothing():
    network = dense(delay=62, into=62)
    legal, report = relay(network)
    assert (report.added, report.layers) == (0, ())
    assert all(a is b for a, b in zip(network.layers, legal.layers, strict=True))
    assert list(report.lines()) == ["no delay exceeds 62, nothing added"]


def test_lava_runs_what_relays_made_of_an_impossible_network():
    pytest.importorskip("lava.magma", reason="lava-nc is not installed")
    from delaynet_lava.lava import run as run_on_lava

    network = dense(vth=300, delay=90, reset="subtract", dv=200)
    legal, _ = relay(network)
    inputs = inputs_for(network, 250, 1, 0.4)
    with pytest.raises(InputError, match="90 steps is more than the 62"):
        run_on_lava(network, inputs)
    one = delaynet_lava.emulate(network, inputs, ("spikes", "voltage"))
    assert one.spike_counts[0].sum() > 20
    assert differing(network, one, run_on_lava(legal, inputs, ("spikes", "voltage"))) == 0


@pytest.mark.parametrize(
    ("network", "texts"),
    [
        (dense(membrane_bits=12), ("layer 0: has membranes of 12 bits",)),
        (dense(du=4095), ("layer 0: du is 4095", "needs 4096")),
        (dense(reset="subtract", dv=0, vth=1000), ("layer 0: what relays keep", "(2 a spike, decay 0/4096)")),
        (dense(reset="subtract", vth=0), ("can exceed the threshold 0",)),
        (dense(vth=131070, exponent=7), ("layer 0: a relay needs 131072", "holds 131071")),
        (dense(vth=READOUT), ("layer 0: a relay needs 131072",)),
        (dense(vth=254, into=63), ("layer 0: delay: input 0", "at most 254", "threshold 254")),
        (dense(vth=80, exponent=2, weight=8, into=63), ("layer 0: delay: ", "not 8-bit words", "exponent 2")),
    ],
)  # fmt: skip
def test_what_relays_cannot_serve_is_refused(network, texts):
    with pytest.raises(InputError) as error:
        relay(network)
    assert all(text in str(error.value) for text in texts), str(error.value)


def test_relays_among_the_outputs_are_refused():
    network = Network(dense().layers[:1])
    with pytest.raises(InputError, match="layer 0: has lags over 63 steps and is the last layer"):
        relay(network)
    with pytest.raises(InputError, match="delay_max: -1 is below 0"):
        relay(network, -1)


def _refused(network: Network) -> bool:
    try:
        relay(network)
    except InputError:
        return True
    return False


def test_the_bound_on_what_soft_resets_leave_is_the_one_that_decides():
    """A decay one less than the least that is accepted lets relays fire by themselves."""
    slow = [dense(weight=0, back=False, reset="subtract", vth=200, dv=dv) for dv in range(100)]
    least = next(dv for dv, network in enumerate(slow) if not _refused(network))
    assert least > 1
    inputs = np.ones((1, 1500, 2), np.uint8)
    inputs[:, 1200:] = 0

    def spurious(dv: int) -> int:
        """Integers that differ where a spike in every step fills the relays to the limit."""
        legal, _ = relay(slow[least])
        hidden = replace(legal.layers[0], neuron=replace(legal.layers[0].neuron, dv=dv))
        pair = [
            delaynet_lava.emulate(n, inputs, ("spikes", "voltage"))
            for n in (slow[dv], legal.with_(layers=(hidden, legal.layers[1])))
        ]
        assert pair[0].spike_counts[0] > 4000
        return differing(slow[dv], *pair)

    assert spurious(least) == 0
    assert spurious(least - 1) > 0


def model(delay: int, **options) -> ModelFile:
    """A trained model of 6 neurons whose spikes return after ``delay + 1`` steps."""
    generator = torch.Generator().manual_seed(2)
    state = {
        "0.input_synapse.weight": torch.rand(6, 40, generator=generator),
        "0.recurrent_synapse.weight": torch.rand(6, 6, generator=generator),
        "0.neuron.current_decay": torch.tensor([4096.0]),
        "0.neuron.voltage_decay": torch.tensor([200.0]),
        "0.neuron.vth": torch.tensor([6.0]),
        "0.delay": torch.full((6,), delay, dtype=torch.int32),
        "1.synapse.weight": torch.rand(2, 6, generator=generator) - 0.5,
        "1.neuron.current_decay": torch.tensor([4096.0]),
        "1.neuron.voltage_decay": torch.tensor([200.0]),
    }
    state |= options
    layers = [{"type": "DelayRecurrent", "neuron": {}}, {"type": "Readout", "neuron": {}}]
    return ModelFile({"layers": layers, "task": {"name": "cue"}, "dt_ms": 1.0}, state)


def command(*args: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["export", *args])
    return int(stop.value.code or 0)


def test_an_export_makes_long_delays_legal_where_it_is_asked_to(tmp_path):
    path = tmp_path / "net.h5"
    with pytest.raises(RuleBroken, match="delay 99 exceeds 62"):
        export_netx(model(99), path)
    assert not path.exists()
    long = export_netx(model(99), tmp_path / "long.h5", force=True).network
    report = export_netx(model(99), path, delay_overflow="relay")
    legal = netx.read(path)
    # vth 384: two senders together.
    assert (report.delays.added, legal.layers[0].size, report.findings) == (12, 18, [])
    assert legal.provenance["export"]["delay_overflow"] == report.delays.as_dict()
    assert report.as_dict()["delay_overflow"]["added_neurons"] == 12
    trace = run(long)
    assert trace.spike_counts[0].sum() > 50
    assert differing(long, trace, run(legal)) == 0

    report = export_netx(model(99), path, delay_overflow="retime")
    assert (netx.read(path).dt_ms, netx.read(path).layers[0].recurrent.max_delay) == (2.0, 49)
    assert report.as_dict()["delay_overflow"]["factor"] == 2
    report = export_netx(model(62), path, delay_overflow="relay")
    assert (report.delays.added, netx.read(path).layers[0].size) == (0, 6)


def test_the_command_prints_the_cost_and_refuses_in_one_line(tmp_path, capsys):
    source, target, figures = (str(tmp_path / n) for n in ("model.pt", "net.h5", "figures.json"))
    save_model(source, model(99))
    assert command(source, "-o", target, "--delay-overflow", "relay", "--json", figures) == 0
    out = capsys.readouterr().out
    assert "relay: layer 0: 12 neurons added to 6 (6 relays, 6 copies; 6 chains of up to 2 hops" in out
    content = json.loads((tmp_path / "figures.json").read_text())["delay_overflow"]
    assert (content["kind"], content["added_neurons"], content["layers"][0]["parallel"]) == ("relay", 12, 2)
    assert command(source, "-o", target, "--delay-overflow", "retime") == 0
    assert "retime: time step 1 ms -> 2 ms" in capsys.readouterr().out
    assert command(source, "-o", target, "--delay-overflow", "clamp") == 2
    assert "'clamp' is not one of ['error', 'relay', 'retime']" in capsys.readouterr().err
    save_model(source, model(99, **{"0.neuron.current_decay": torch.tensor([1000.0])}))
    assert command(source, "-o", target, "--delay-overflow", "relay") == 2
    err = capsys.readouterr().err
    assert f"{source}: layer 0: du is 1000" in err and len(err.splitlines()) == 1
