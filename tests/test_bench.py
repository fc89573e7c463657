"""The benchmark: that peers compute the same thing, and what is said of them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from delaynet_lava import pictures
from delaynet_lava.bench import harness, machine, plots, ratios, scaling
from delaynet_lava.bench.harness import Figure, Job, LeftOut
from delaynet_lava.bench.loops import LastMembrane, PlainLoop, TunedLoop
from delaynet_lava.bench.shapes import images, inputs_of
from delaynet_lava.bench.subject import (
    Subject,
    calibrated,
    hidden_rates,
    parts,
    probe,
    random_inputs,
    stack,
    task_inputs,
)
from delaynet_lava.bench.workloads import undelayed
from delaynet_lava.cli import main
from delaynet_lava.emulator import emulate
from delaynet_lava.errors import InputError
from delaynet_lava.fixedpoint import VTH_MAX
from delaynet_lava.network import Dense, Network, Neuron, Synapse


def call(*args: str) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as stop:
        main(list(args))
    return int(stop.value.code or 0)


def figure(name: str, *runs: float, amount: float = 100.0, **facts) -> Figure:
    return Figure(name, list(runs), 9.0, amount, 1, 10.0, 20.0, {"rate": 0.1, "spikes": 7, **facts})


def test_a_ratio_says_whether_the_goal_is_reached():
    figures = {"ours": figure("ours", 2.0), "theirs": figure("theirs", 60.0, amount=200.0)}
    faster = ratios._ratio(ratios._Pair("r", "ours", "theirs", 25.0), figures)
    assert faster.value == 15.0 and faster.reached is False
    longer = ratios._ratio(ratios._Pair("r", "theirs", "ours", 15.5, at_most=True), figures)
    assert longer.value == pytest.approx(15.0) and longer.reached is True
    assert ratios._ratio(ratios._Pair("r", "ours", "theirs"), figures).reached is None


# The network and the peers


def small(dv: int, seed: int = 3, delays: tuple[int, ...] = (0, 3, 7)) -> Network:
    """6 - 12 - 2 whose membranes 32-bit floats hold exactly: decays of 0, 1/2 and 1."""
    rng = np.random.default_rng(seed)
    delay = np.tile(np.repeat(delays, 4), (12, 1))
    even = lambda *shape: 2 * rng.integers(-40, 41, shape)  # noqa: E731
    hidden = Dense(Synapse(even(12, 6) + 20), Neuron(150, 4096, dv), Synapse(even(12, 12), delay))
    return Network((hidden, Dense(Synapse(even(2, 12)), Neuron(VTH_MAX, 4096, 2048))))


def small_inputs(samples: int = 5, steps: int = 60) -> np.ndarray:
    return (np.random.default_rng(8).random((samples, steps, 6)) < 0.3).astype(np.uint8)


def loop_of(kind: type[torch.nn.Module], network: Network, dtype: torch.dtype = torch.float32):
    """A loop of the only hidden layer, its input and its recurrent weights, and its spikes of (T, B, C)."""
    if kind is TunedLoop:
        net = TunedLoop(*parts(network)[:2], dtype)
        return net.into, net.back, net
    net = PlainLoop(network, dtype)
    return net.into[0], net.back[0], lambda x: net(x)[0]


def looped(network: Network, x: np.ndarray, kind: type[torch.nn.Module]) -> np.ndarray:
    with torch.no_grad():
        spikes = loop_of(kind, network, torch.float64)[2](torch.from_numpy(x).transpose(0, 1).double())
    return spikes.transpose(0, 1).numpy().astype(np.uint8)


@pytest.mark.parametrize("loop", [PlainLoop, TunedLoop])
@pytest.mark.parametrize("dv", [0, 2048, 4096])
def test_the_loops_spike_as_the_emulator(dv, loop):
    network, x = small(dv), small_inputs()
    spikes = emulate(network, x).spikes[0]
    # Its input has no lag: what it does at a step, the network does at the next.
    assert 0.03 < spikes.mean() < 0.6
    assert (looped(network, x, loop)[:, :-1] == spikes[:, 1:]).all()
    other = looped(small(dv, delays=(0, 4, 7)), x, loop)
    assert (other[:, :-1] != spikes[:, 1:]).any()


@pytest.mark.parametrize("kind", [PlainLoop, TunedLoop])
def test_the_loops_have_the_gradient_of_the_blocks(kind):
    pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")
    from delaynet_lava.bench.training import blocks

    # Membranes that keep nothing: through a reset, the blocks bound what the loop does not.
    network, x = small(4096), torch.from_numpy(small_inputs()).to(torch.float32)
    net, (into, back, loop) = blocks(network), loop_of(kind, network)
    mine = net[0](x.transpose(1, 2))
    theirs = loop(x.transpose(0, 1))
    assert torch.equal(mine.permute(2, 0, 1)[1:], theirs[:-1])
    share = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(0))
    (mine.permute(2, 0, 1)[1:] * share[:-1]).sum().backward()
    (theirs[:-1] * share[:-1]).sum().backward()
    pairs = [(net[0].input_synapse.weight, into), (net[0].recurrent_synapse.weight, back)]
    for ours, plain in pairs:
        gradient = ours.grad.reshape(plain.shape)
        assert gradient.abs().max() > 0.1
        assert torch.allclose(gradient, plain.grad, rtol=1e-4, atol=1e-5)


def two_layers(dv: int) -> Network:
    """6 - 12 - 8 - 2, both hidden layers recurrent."""
    first, second = small(dv), small(dv, seed=5)
    into, readout = second.layers[0].synapse.weight[:8], second.layers[1]
    weight, delay = second.layers[0].recurrent.weight[:8, :8], second.layers[0].recurrent.delay[:8, :8]
    between = Synapse(np.tile(into, (1, 2))[:, :12])
    middle = Dense(between, Neuron(110, 4096, dv), Synapse(weight, delay))
    return Network((first.layers[0], middle, Dense(Synapse(readout.synapse.weight[:, :8]), readout.neuron)))


@pytest.mark.parametrize("dv", [2048, 4096])
def test_the_plain_loop_runs_a_stack_as_the_emulator(dv):
    network, x = two_layers(dv), small_inputs()
    spikes = emulate(network, x).spikes
    with torch.no_grad():
        theirs = PlainLoop(network, torch.float64)(torch.from_numpy(x).transpose(0, 1).double())
    for k, found in enumerate(theirs):  # which have no lag from layer to layer
        assert 0.02 < spikes[k].mean() < 0.7
        assert (found.transpose(0, 1)[:, : -1 - k].numpy() == spikes[k][:, 1 + k :]).all()


def test_ours_is_measured_on_a_stack_as_it_runs():
    pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")
    from delaynet_lava.bench.training import blocks

    network, x = two_layers(2048), small_inputs()
    net, spikes = blocks(network), emulate(network, x).spikes
    y = torch.from_numpy(x).transpose(1, 2).float()
    for k in range(2):
        y = net[k](y)
        assert np.array_equal(y.detach().transpose(1, 2).numpy(), spikes[k])


@pytest.mark.parametrize("dv", [0, 2048, 4096])
def test_the_scan_spikes_as_the_emulator_and_has_the_gradient_of_the_loop(dv):
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    from delaynet_lava.bench.peers_jax import delayed_layer

    network, x = small(dv), small_inputs()
    layer, back, _ = parts(network)
    into, square, loop = loop_of(TunedLoop, network)
    run = delayed_layer(layer, back)
    time_first = x.transpose(1, 0, 2).astype(np.float32)
    arguments = into.detach().numpy(), square.detach().numpy(), time_first
    spikes = np.asarray(run(*arguments))
    assert (spikes.transpose(1, 0, 2)[:, :-1] == emulate(network, x).spikes[0][:, 1:]).all()
    share = np.random.default_rng(0).standard_normal(spikes.shape).astype(np.float32)
    ours = jax.grad(lambda into, square: (run(into, square, time_first) * share).sum(), (0, 1))(
        *arguments[:2]
    )
    (loop(torch.from_numpy(time_first)) * torch.from_numpy(share)).sum().backward()
    for mine, theirs in zip(ours, (into.grad, square.grad), strict=True):
        scale = float(theirs.abs().max())
        assert scale > 0.1 and np.allclose(np.asarray(mine) / scale, theirs.numpy() / scale, atol=1e-5)
    order = np.random.default_rng(1).permutation(12)  # delays that are not in order
    mixed = Synapse(back.weight, back.delay[:, order])
    shuffled = network.with_(layers=(replace(layer, recurrent=mixed), network.layers[1]))
    again = np.asarray(delayed_layer(layer, mixed)(*arguments))
    assert (again.transpose(1, 0, 2)[:, :-1] == emulate(shuffled, x).spikes[0][:, 1:]).all()
    assert np.array_equal(looped(shuffled, x, TunedLoop), again.transpose(1, 0, 2))


# The cells


@pytest.mark.parametrize("kind", ["PlainCells", "TunedCells"])
def test_the_loops_over_cells_are_the_cells_in_floats_and_nearly_those_in_integers(kind):
    from delaynet_lava.bench import cells

    of = cells.drawn(6, 50)
    net, loop = cells.blocks(of, "float"), getattr(cells, kind)(of.weight)
    x = of.x.transpose(1, 2).contiguous()
    mine, theirs = net[0](x), loop(of.x.transpose(0, 1))
    assert 0.02 < float(theirs.detach().mean()) < 0.08
    same = mine.detach().permute(2, 0, 1)[1:] == theirs.detach()[:-1]
    assert float(same.float().mean()) > 0.999
    whole = cells.blocks(of)[0](x).detach().permute(2, 0, 1)[1:] == theirs.detach()[:-1]
    assert float(whole.float().mean()) > 0.97
    share = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(0))
    (mine.permute(2, 0, 1)[1:] * share[:-1]).sum().backward()
    (theirs[:-1] * share[:-1]).sum().backward()
    # Ours is of the stored weight, theirs of the one in the equations.
    gradient = net[0].synapse.weight.grad.reshape(loop.weight.shape) * 2.0**cells.WEIGHT_EXP
    scale = float(loop.weight.grad.abs().max())
    assert torch.allclose(gradient / scale, loop.weight.grad / scale, atol=0.02)


def test_every_peer_has_a_workload():
    from delaynet_lava.bench.worker import WORKLOADS

    assert {work for _, work, _ in (*ratios.PEERS, *ratios.CELL_PEERS)} <= WORKLOADS.keys()


def test_the_plain_loop_over_integers_is_the_layer():
    from delaynet_lava.bench import cells

    of = cells.drawn(6, 50)
    block, loop = cells.blocks(of)[0], cells.IntegerCells(of.into)
    mine, theirs = block(of.x.transpose(1, 2).contiguous()), loop(of.x.transpose(0, 1))
    assert torch.equal(mine.detach().permute(2, 0, 1)[1:], theirs.detach()[:-1]) and theirs.any()
    share = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(0))
    (mine.permute(2, 0, 1)[1:] * share[:-1]).sum().backward()
    (theirs[:-1] * share[:-1]).sum().backward()
    for ours, plain in ((block.synapse.weight, loop.weight), (block.bias, loop.bias)):
        scale = float(plain.grad.abs().max())
        assert torch.allclose(ours.grad.reshape(plain.shape) / scale, plain.grad / scale, atol=1e-4)


def test_the_emulator_of_cells_runs_what_is_trained():
    from delaynet_lava.bench import cells

    works = [make(6, 40) for make in (cells.ours, cells.emulator)]
    for work in works:
        work.run()
    trained, emulated = (work.facts() for work in works)
    # The trained output is late by a step, so that it lacks the last one's.
    assert emulated["rate"] == pytest.approx(trained["rate"], rel=0.1) and emulated["rate"] > 0.01


def test_the_scan_over_cells_takes_the_step_of_the_loop():
    pytest.importorskip("jax", reason="JAX is not installed")
    from delaynet_lava.bench import cells

    found = {}
    for make in (cells.tuned, cells.scan):
        work = make(8, 30)
        work.run()
        found[make] = work.facts()
    assert found[cells.scan]["rate"] == pytest.approx(found[cells.tuned]["rate"], rel=0.01)
    assert found[cells.scan]["loss"] == pytest.approx(found[cells.tuned]["loss"], rel=0.01)
    assert found[cells.scan]["gradient_finite"]


def test_the_plain_loop_reads_out_what_the_tuned_one_does():
    network, x = small(2048), torch.from_numpy(small_inputs()).transpose(0, 1).to(torch.float32)
    plain = PlainLoop(network)
    (spikes,) = plain(x)
    out = network.layers[1]
    readout = LastMembrane(plain.out.detach(), 1 - out.neuron.dv / 4096, len(x))
    assert torch.allclose(plain.membranes, readout(spikes))
    assert not torch.allclose(plain.membranes, readout(spikes.flip(0)))


def test_the_membrane_after_the_last_step_is_the_loops():
    spikes = (torch.rand((40, 3, 5), generator=torch.Generator().manual_seed(1)) < 0.4).double()
    weight = torch.randn((2, 5), generator=torch.Generator().manual_seed(2)).double()
    v = torch.zeros((3, 2), dtype=torch.float64)
    for s in spikes:
        v = 0.9 * v + s @ weight.t()
    assert torch.allclose(LastMembrane(weight, 0.9, 40)(spikes), v)
    assert not torch.allclose(LastMembrane(weight, 0.8, 40)(spikes), v)


def test_the_seeded_network_has_the_shape_and_the_rate_of_the_shipped_one():
    x, _ = task_inputs(8)
    subject, rate = calibrated(Subject(), x)
    network = subject.network()
    assert network.summary() == "40 - 125 recurrent (delays up to 62) - 2"
    assert [rate] == hidden_rates(network, x) == [pytest.approx(0.024, rel=0.03)]
    assert sorted(set(parts(network)[1].delay[0].tolist())) == [0, 50, 62]
    assert Subject.of(json.loads(json.dumps(subject.options()))) == subject
    assert parts(undelayed(network))[1].max_delay == 0
    assert calibrated(replace(subject, vth=(2000,)), x)[1] < 0.02


@pytest.mark.parametrize("layers", [(), (48, 112, 112)])
def test_the_network_of_pixels_spikes_as_often_in_every_layer(layers):
    subject = Subject(shape="psmnist", layers=layers)
    x, labels = probe(subject, 8, 784)
    assert x.shape == (8, 784, 1) and (x > 0).mean() == pytest.approx(0.19, abs=0.03) and x.max() > 250
    subject, _ = calibrated(subject, x)
    network = subject.network()
    sizes = layers or (216,)
    assert [layer.size for layer in network.layers] == [*sizes, 10] and len(labels) == 8
    assert network.payload.bits == 8
    assert all(set(back.delay[0].tolist()) == {0, 25, 62} for _, back in stack(network)[0])
    assert hidden_rates(network, x) == [pytest.approx(0.08, rel=0.1)] * len(sizes)
    trace = emulate(network, x)
    assert not any(trace.u_wraps + trace.v_saturations)
    assert Subject.of(json.loads(json.dumps(subject.options()))) == subject


def test_images_are_sequences_or_rates():
    pixels = images(3)
    assert (inputs_of(3, 784)[:, :, 0] == pixels).all()
    assert (inputs_of(3, 1000)[:, 784:, 0] == pixels[:, :216]).all()
    spikes = inputs_of(3, 2000, rates=True)
    assert spikes.shape == (3, 2000, 784) and np.allclose(spikes.mean(axis=1), pixels / 1020, atol=0.05)


def test_a_sparse_network_has_as_many_synapses_as_asked():
    network = Subject(layers=(300,), fan_out=50).network()
    fan_out = np.count_nonzero(parts(network)[1].weight, axis=0)
    assert 40 < fan_out.mean() <= 50
    _, rate = calibrated(Subject(layers=(300,), fan_out=50), random_inputs(4, 300), 0.03)
    assert rate == pytest.approx(0.03, rel=0.05)


def test_the_shipped_model_can_be_measured_and_others_are_refused(repository, tmp_path):
    path = str(repository / "delaynet_lava" / "models" / "cue_loihi2.pt")
    subject, rate = calibrated(Subject(path), task_inputs(8)[0])
    assert subject.model == path and 0.01 < rate < 0.05
    from delaynet_lava import save

    save(small(2048), tmp_path / "small.h5")
    with pytest.raises(InputError, match="give 40 inputs, a recurrent layer"):
        Subject(str(tmp_path / "small.h5")).network()


def test_the_goals_are_those_of_the_full_size():
    plan = ratios.plan_ratios()
    goals = {pair.name: pair.goal for pair in plan.pairs if pair.goal}
    assert sorted(goals.values()) == [1.15, 5.0, 17.0, 25.0, 40.0, 55.0, 50000.0]
    assert (goals["training vs JAX scan"], goals["training vs plain loop"]) == (17.0, 55.0)
    training = plan.jobs[0].options
    assert (training["samples"], training["steps"]) == (64, 2250)
    assert all(job.repeats >= 5 for job in plan.jobs)
    assert len({job.name for job in plan.jobs}) == len(plan.jobs)
    names = {job.name for job in plan.jobs}
    assert all({pair.ours, pair.theirs} <= names for pair in plan.pairs)


# Growth


def test_a_slope_is_the_exponent():
    series = scaling.Series("s", "steps", [1, 2, 4, 8], [figure("f", 3.0 * x**1.5) for x in (1, 2, 4, 8)])
    assert series.slope == pytest.approx(1.5)
    assert scaling.Series("s", "steps", [1], [figure("f", 3.0)]).slope is None


def test_series_go_to_the_sizes_that_were_promised(monkeypatch):
    plans = {plan.name: plan for plan in scaling.plan_scaling()}
    for part in ("training", "emulator"):
        reach = [x for x, _ in plans[f"{part} over steps"].points]
        assert (reach[0], reach[-1]) == (2000, 64000)
    assert max(x for plan in plans.values() for x, _ in plan.points if plan.over == "neurons") == 8192

    def fake(jobs: list[Job]) -> list[Figure | LeftOut]:
        (job,) = jobs
        if job.name.endswith(": 64000"):
            return [LeftOut(job.name, "too long")]
        return [figure(job.name, 1.0, spikes=1e5 * (job.options["rate"] or 1))]

    monkeypatch.setattr(scaling, "measure", fake)
    started: list[str] = []
    report = scaling.measure_scaling(list(plans.values()), started.append)
    assert len(started) == sum(len(plan.points) for plan in plans.values())
    assert {one.name for one in report.left_out} == {
        "training over steps: 64000",
        "emulator over steps: 64000",
    }
    (spikes,) = (s for s in report.series if s.over == "spikes")
    assert spikes.x == [pytest.approx(1e5 * rate) for rate in scaling.RATES]
    assert all(len(s.x) == 5 for s in report.series if s.over == "steps")


# Pictures


def test_the_pictures_show_every_figure_and_goal(tmp_path):
    shown = [
        ratios.Ratio("a", "x", "y", 30.0, 25.0),
        ratios.Ratio("b", "x", "y", 1.1, 1.15, at_most=True),
        ratios.Ratio("c", "x", "y", 30123.4, None),
    ]
    (axes,) = plots.draw_ratios(shown, "title").axes
    assert [bar.get_x() + bar.get_width() for bar in axes.patches] == pytest.approx([30.0, 1.1, 30123.4])
    assert [line.get_xdata()[0] for line in axes.lines] == [25.0, 1.15]
    assert [t.get_text().split()[0] for t in axes.texts] == ["30.0", "1.10", "30,123"]

    series = [
        scaling.Series("training over steps", "steps", [1, 2], [figure("f", 1.0), figure("f", 2.0)]),
        scaling.Series("emulator over steps", "steps", [1, 2], [figure("f", 1.0), figure("f", 4.0)]),
        scaling.Series("emulator over spikes", "spikes", [5], [figure("f", 1.0)]),
    ]
    picture = plots.draw_scaling(series, "title")
    steps, spikes = picture.axes
    labels = [text.get_text() for text in steps.get_legend().get_texts()]
    assert labels == ["training: slope 1.00", "emulator: slope 2.00", "slope 1"]
    assert spikes.get_xscale() == spikes.get_yscale() == "log"
    path = tmp_path / "a.png"
    pictures.write(picture, str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"ends in '.gif'"):
        pictures.write(picture, str(tmp_path / "a.gif"))


# The command


def test_the_command_measures_and_names_what_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(harness, "installed", lambda module: False)
    report, picture = tmp_path / "bench.json", tmp_path / "bench.svg"
    options = ("--quick", "--part", "emulator", "--json", str(report), "--plot", str(picture))
    assert call("bench", *options) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "left out: Lava: stock (lava-nc and lava-dl not installed)" in out
    assert "emulator: delaynet_lava" in out and "too short for the goals" in out

    content = json.loads(report.read_text())
    assert set(content) == {
        "machine", "versions", "quick", "networks", "sizes", "figures", "ratios", "left_out"
    }  # fmt: skip
    assert content["machine"]["cpu"] and content["machine"]["cores"] == machine.cores()
    assert {"delaynet_lava", "python", "numpy", "torch"} <= set(content["versions"])
    (measured,) = content["figures"]
    assert measured["name"] == "emulator: delaynet_lava"
    assert len(measured["runs_s"]) >= 2 and measured["amount"] == 64 * 300
    assert measured["sample_steps_per_s"] == pytest.approx(measured["amount"] / measured["median_s"])
    assert 0.01 < measured["facts"]["rate"] < 0.5 and measured["facts"]["overflows"] == 0
    assert content["ratios"] == []
    assert content["left_out"] == [{"name": "Lava: stock", "reason": "lava-nc and lava-dl not installed"}]
    assert "</svg>" in picture.read_text()


@pytest.mark.parametrize("shape", ["psmnist", "src"])
def test_every_shape_names_its_peers_and_what_is_missing(shape, capsys, monkeypatch):
    monkeypatch.setattr(harness, "installed", lambda module: False)
    run = lambda jobs: [  # noqa: E731
        LeftOut(job.name, "not installed") if job.needs else figure(job.name, 1.0) for job in jobs
    ]
    monkeypatch.setattr(ratios, "measure", run)
    assert call("bench", "--quick", "--shape", shape) == 0
    out = " ".join(capsys.readouterr().out.split())
    networks = {"psmnist": ["1 - 216 recurrent", "1 - 48 recurrent"], "src": ["784 - 100 Spiking"]}
    assert all(text in out for text in networks[shape])
    assert "training vs tuned loop 1.00" in out and "training vs torch.compile 1.00" in out
    assert "left out: training: JAX scan (not installed)" in out
    if shape == "psmnist":
        assert "training 48-112-112 vs plain loop 1.00 >= 10" in out
        assert "left out: training 48-112-112: Spyx (not installed)" in out
        assert "emulator: delaynet_lava" in out and "Lava" not in out.partition("measured")[2]


def test_a_simulator_that_disagrees_is_an_exit_code(monkeypatch, capsys):
    def fake(jobs: list[Job]) -> list[Figure]:
        return [figure(job.name, 1.0, emulator_agrees="512" not in job.name) for job in jobs]

    monkeypatch.setattr(ratios, "measure", fake)
    assert call("bench", "--quick", "--part", "lava") == 1
    out, err = capsys.readouterr()
    assert "Lava: FastDelayDense, 512: its membranes are not the emulator's" in err
    assert "Lava: FastDelayDense vs stock 1.00 >= 5" in " ".join(out.split())
    agree = lambda jobs: [figure(job.name, 1.0, emulator_agrees=True) for job in jobs]  # noqa: E731
    monkeypatch.setattr(ratios, "measure", agree)
    assert call("bench", "--quick", "--part", "lava") == 0


def test_the_growth_is_printed_with_its_slopes(monkeypatch, capsys):
    def fake(jobs: list[Job]) -> list[Figure]:
        (job,) = jobs
        return [figure(job.name, job.options["samples"] * job.options["steps"] / 1e6)]

    monkeypatch.setattr(scaling, "measure", fake)
    assert call("bench", "--quick", "--scaling", "--part", "emulator", "--json", "-") == 0
    content = json.loads(capsys.readouterr().out)
    by_name = {s["name"]: s for s in content["series"]}
    assert by_name["emulator over steps"]["slope"] == pytest.approx(1.0)
    assert [p["x"] for p in by_name["emulator over steps"]["points"]] == [200, 400, 800]
    assert not any("training" in name for name in by_name)
    assert call("bench", "--quick", "--scaling", "--part", "emulator") == 0
    assert "emulator over steps: time ~ steps^1.00" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--part", "gpu"), "--part: 'gpu' is not known"),
        (("--shape", "cube"), "--shape: 'cube' is not known; choose from: cue, psmnist, src"),
        (
            ("--shape", "src", "--part", "lava"),
            "--part: 'lava' is not known here; choose from: training, emulator",
        ),
        (("--shape", "psmnist", "--model", "m.pt"), "--model: goes with the shape cue"),
        (("--shape", "src", "--task", "cue"), "--task: the shape src has its own inputs"),
        (("--scaling", "--part", "lava"), "--part: 'lava' is not known"),
        (("--scaling", "--model", "m.pt"), "--scaling: takes many sizes"),
        (("--scaling", "--shape", "src"), "--scaling: takes many sizes"),
        (("--model", "nowhere.pt"), "nowhere.pt: does not exist"),
        (("--plot", "a.gif"), "a.gif: ends in '.gif'"),
        (("--json", "nowhere/a.json"), "--json nowhere/a.json: its folder does not exist"),
    ],
)
def test_bad_usage_is_one_line_before_anything_runs(options, words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ratios, "measure", None)
    assert call("bench", *options) == 2
    err = capsys.readouterr().err
    assert err.startswith("delaynet: ") and err.count("\n") == 1
    assert words in err


def test_the_command_has_help_with_an_example(capsys):
    assert call("bench", "--help") == 0
    assert "Example: delaynet bench" in " ".join(capsys.readouterr().out.split())


# With what is installed


def takes_a_step(name: str, workload: str, needs: dict[str, str], options: dict) -> None:
    (result,) = harness.measure([Job(name, workload, options, needs, repeats=1, fill_s=0)])
    if isinstance(result, LeftOut) and "not installed" in result.reason:
        pytest.skip(result.reason)
    assert isinstance(result, Figure), result
    assert result.facts["rate"] > 0.01 and np.isfinite(result.facts["loss"])
    assert result.facts["gradient_finite"]


@pytest.mark.slow
@pytest.mark.parametrize("subject", [Subject(), Subject(shape="psmnist", layers=(12, 28, 28))])
@pytest.mark.parametrize(("name", "workload", "needs"), [("ours", "training", {}), *ratios.PEERS])
def test_a_peer_takes_a_training_step(subject, name, workload, needs):
    subject, _ = calibrated(subject, probe(subject, 4, 300)[0])
    takes_a_step(name, workload, needs, {"subject": subject.options(), "samples": 4, "steps": 300})


@pytest.mark.slow
@pytest.mark.parametrize(("name", "workload", "needs"), [("ours", "cells", {}), *ratios.CELL_PEERS])
def test_a_peer_takes_a_training_step_of_cells(name, workload, needs):
    takes_a_step(name, workload, needs, {"samples": 4, "steps": 40})


@pytest.mark.slow
def test_graphs_of_lava_take_turns_and_run_what_the_emulator_runs():
    subject, _ = calibrated(Subject(), task_inputs(4)[0])
    options = {"subject": subject.options(), "steps": 150}
    jobs = [
        Job(f"{models} {delayed}", "lava", {**options, "models": models, "delayed": delayed}, ratios.LAVA, 1)
        for models, delayed in (("fast", True), ("stock", True), ("stock", False))
    ]
    results = harness.measure(jobs)
    if isinstance(results[0], LeftOut) and "not installed" in results[0].reason:
        pytest.skip(results[0].reason)
    for result in results:
        assert isinstance(result, Figure), result
        assert result.facts["emulator_agrees"] and result.facts["rate"] > 0.01
    assert len({len(result.runs_s) for result in results}) == 1


def test_the_inputs_of_another_task_are_measured(tmp_path):
    rng = np.random.default_rng(0)
    inputs = (rng.random((30, 40, 6)) < 0.2).astype(np.uint8)
    np.savez(tmp_path / "mine.npz", test_inputs=inputs, test_labels=np.arange(30) % 3)
    word = str(tmp_path / "mine.npz")
    plan = ratios.plan_ratios(quick=True, parts=("training", "emulator"), word=word)
    (network,) = plan.networks
    assert network["summary"].startswith("6 - 125 recurrent") and network["summary"].endswith("- 3")
    assert (plan.sizes.train_steps, plan.sizes.emulator_samples) == (40, 30)
    ours = next(job for job in plan.jobs if job.name == "emulator: delaynet_lava")
    assert isinstance(harness.measure([ours])[0], Figure)
    np.savez(tmp_path / "graded.npz", test_inputs=3 * inputs, test_labels=np.arange(30) % 3)
    with pytest.raises(InputError, match="payloads"):
        ratios.plan_ratios(word=str(tmp_path / "graded.npz"))
