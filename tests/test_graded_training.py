"""The training's forward pass with payloads and initial states is the network's; so is the gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

from delaynet_lava.emulator import emulate
from delaynet_lava.errors import InputError
from delaynet_lava.export import extract
from delaynet_lava.kernels import training_pass
from delaynet_lava.nn import DelayRecurrent, Dense, Readout
from delaynet_lava.nn.model import build, describe
from delaynet_lava.payloads import Payload
from delaynet_lava.trace import scores

STEPS = 70


@st.composite
def trained(draw):
    """A network of blocks with initial states, and the payload that it takes."""
    torch.manual_seed(draw(st.integers(0, 10**6)))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    payload = Payload(draw(st.integers(1, 24)), draw(st.booleans()))
    channels, hidden = draw(st.integers(1, 8)), draw(st.integers(2, 20))

    def params(size):
        threshold, du = draw(st.floats(1, 40)), draw(st.sampled_from([1.0, 0.4, 0.1]))
        reach = draw(st.sampled_from([0, int(threshold * 4000)]))
        start = {"v_start": rng.integers(-reach, reach, size, endpoint=True)}
        if du < 1:
            start["u_start"] = rng.integers(-reach // 20, reach // 20, size, endpoint=True)
        decay = draw(st.sampled_from([0.004, 0.05, 0.5]))
        return {"threshold": threshold, "current_decay": du, "voltage_decay": decay, **start}

    options = {
        "weight_scale": draw(st.sampled_from([1, 3])),
        "reset": draw(st.sampled_from(["zero", "subtract"])),
    }
    if draw(st.booleans()):
        delay = rng.integers(0, 30, hidden)
        block = DelayRecurrent(
            params(hidden), channels, hidden, delay, recompute=draw(st.booleans()), **options
        )
    else:
        block = Dense(params(hidden), channels, hidden, **options)
    return torch.nn.Sequential(block, Readout(params(3), hidden, 3, weight_scale=3)), payload


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(trained(), st.integers(0, 10**6), st.sampled_from(["last", "sum", "mean:9:40"]))
def test_the_forward_pass_is_the_emulators(drawn, seed, decision):
    model, payload = drawn
    rng = np.random.default_rng(seed)
    channels = model[0].input_matrix().shape[1]
    # Beyond 2**17 a weight of 2 wraps the current: then, too, but not only.
    reach = 1 << int(rng.choice([4, 11, 24]))
    low, high = max(payload.low, -reach), min(payload.high, reach)
    x = rng.integers(low, high, (3, STEPS, channels), endpoint=True) * (
        rng.random((3, STEPS, channels)) < 0.3
    )
    model[0].want_voltage = True
    with torch.no_grad():
        spikes = model[0](torch.from_numpy(x).transpose(1, 2).float())
        voltage = model[1](spikes)
    membranes = (voltage.double() * 4096).numpy().transpose(0, 2, 1)
    for file in (
        describe(model, decision=decision, payload=payload),
        describe(build(describe(model)), decision=decision, payload=payload),
    ):
        network = extract(file)
        trace = emulate(network, x, ("spikes", "voltage"))
        assert network.tail == 0 and network.payload == payload
        assert np.array_equal(trace.spikes[0], spikes.numpy().transpose(0, 2, 1))
        assert np.array_equal(trace.voltage[1][:, 1:], membranes[:, 1:])
        window = network.answer.within(0, STEPS)
        added = trace.voltage[1][:, window].sum(axis=1, dtype=np.int64)
        assert np.array_equal(
            scores(network, trace), trace.voltage[1][:, -1] if decision == "last" else added
        )


def test_a_wrong_start_is_seen():
    torch.manual_seed(1)
    params = {"threshold": 2.0, "current_decay": 0.4, "voltage_decay": 0.05}
    models = [
        Dense({**params, "v_start": [v, 0, 0], "u_start": 30}, 4, 3, weight_scale=2) for v in (900, 904)
    ]
    models[1].load_state_dict(models[0].state_dict())
    x = (np.random.default_rng(1).random((2, 30, 4)) < 0.3).astype(np.uint8)
    first, second = (
        emulate(extract(describe(torch.nn.Sequential(m))), x, ("voltage",)).voltage[0] for m in models
    )
    assert (first[:, 0] == [[900, 0, 0]]).all() and (second[:, 0] == [[904, 0, 0]]).all()


@pytest.mark.parametrize(
    ("start", "problem"),
    [
        ({"v_start": 9000}, "v_start: lies above the threshold"),
        ({"u_start": 5, "current_decay": 1.0}, "u_start: a current that decays by 4096/4096"),
        ({"v_start": -8000, "voltage_decay": 4095 / 4096}, "v_init: value at"),
    ],
)
def test_a_start_that_no_step_leads_to_is_refused(start, problem):
    params = {"threshold": 2.0, "current_decay": 0.4, "voltage_decay": 0.05, **start}
    with pytest.raises(InputError, match=problem):
        extract(describe(torch.nn.Sequential(Dense(params, 4, 3))))


def test_the_gradient_of_payloads_is_that_of_spikes():
    """An input that nothing listens to sends a 2 once: all else goes the other way through the kernels."""
    torch.manual_seed(2)
    params = {"threshold": 1.5, "current_decay": 0.4, "voltage_decay": 0.05, "requires_grad": True}
    block = DelayRecurrent(params, 9, 12, np.arange(12), weight_scale=3)
    block.input_synapse.weight.data[:, 8] = 0
    x = (torch.rand(3, 9, STEPS) < 0.3).float()
    graded = x.clone()
    graded[0, 8, 5] = 2
    found = []
    for signal in (x, graded):
        block.zero_grad()
        signal.requires_grad_(True)
        out = block(signal)
        (out * torch.linspace(0, 1, STEPS)).sum().backward()
        grads = [p.grad.clone() for p in block.parameters() if p.grad is not None]
        grads[[p is block.input_synapse.weight for p in block.parameters()].index(True)][:, 8] = 0
        found.append((out.detach(), signal.grad, grads))
    (out, grad, grads), (out_2, grad_2, grads_2) = found
    assert torch.equal(out, out_2) and out.sum() > 20
    torch.testing.assert_close(grad, grad_2)
    torch.testing.assert_close(grads, grads_2)


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_whole_numbers_beyond_a_payload_are_refused(kind):
    block = Dense({"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.1}, 1, 3)
    for value in (1 << 24, -(1 << 24), torch.iinfo(kind).max, torch.iinfo(kind).min):
        with pytest.raises(InputError, match="a payload has at most 24 bits"):
            block(torch.full((1, 1, 4), value, dtype=kind))


@pytest.mark.parametrize("channels", [1, 9])
def test_the_gradient_of_payloads_is_the_same_by_rows_and_by_products(channels, monkeypatch):
    torch.manual_seed(3)
    params = {"threshold": 30.0, "current_decay": 0.4, "voltage_decay": 0.05, "requires_grad": True}
    block = DelayRecurrent(params, channels, 40, np.arange(40) % 63, weight_scale=3)
    x = torch.randint(-99, 100, (6, channels, 200)) * (torch.rand(6, channels, 200) < 0.3)
    found = []
    for dense in (0, 1 << 30):
        monkeypatch.setattr(training_pass, "DENSE", dense)
        signal = x.float().requires_grad_()
        block.zero_grad()
        out = block(signal)
        (out * torch.linspace(-1, 1, 200)).sum().backward()
        found.append(
            [out.detach(), signal.grad, *(p.grad.clone() for p in block.parameters() if p.grad is not None)]
        )
    assert len(found[0]) == 7 and 0.01 < found[0][0].mean() < 0.6
    assert torch.equal(found[0][0], found[1][0]) and x.shape[1] == found[0][1].shape[1]
    for products, rows in zip(*found, strict=True):
        scale = float(rows.abs().max())
        assert scale > 0
        torch.testing.assert_close(products / scale, rows / scale, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_the_decays_knows_the_start():
    """Of a readout, whose membrane is smooth in them up to rounding: against torch's own."""
    start = {"v_start": [400000, -300000], "u_start": [20000, 10000]}
    readout = Readout({"current_decay": 0.2, "voltage_decay": 0.05, "requires_grad": True, **start}, 3, 2)
    readout(torch.zeros(1, 3, 20)).sum().backward()
    du, dv = (torch.tensor(k, dtype=torch.float64, requires_grad=True) for k in (0.2, 0.05))
    total, u, v = 0, *(torch.tensor(start[k], dtype=torch.float64) / 4096 for k in ("u_start", "v_start"))
    for _ in range(19):
        u = (1 - du) * u
        v = (1 - dv) * v + u
        total = total + v.sum()
    total.backward()
    for ours, theirs in ((readout.neuron.current_decay, du), (readout.neuron.voltage_decay, dv)):
        assert float(ours.grad) * 4096 == pytest.approx(float(theirs.grad), rel=0.01)


def test_fractions_and_more_than_24_bits_are_refused():
    block = Dense({"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.1}, 2, 2)
    for value, problem in ((0.5, "holds fractions"), (float(1 << 24), "at most 24 bits")):
        with pytest.raises(InputError, match=problem):
            block(torch.full((1, 2, 3), value))
