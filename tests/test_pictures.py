"""Pictures of trainings and networks: what they show is what was computed."""

from __future__ import annotations

import numpy as np
import pytest

from delaynet_lava import pictures
from delaynet_lava.analysis import activity, learning
from delaynet_lava.cli import main
from delaynet_lava.emulator import emulate
from delaynet_lava.errors import InputError
from delaynet_lava.formats.model_file import ModelFile, save_model
from delaynet_lava.formats.netx import write
from delaynet_lava.network import Dense, Network, Neuron, Synapse
from delaynet_lava.nn.lattice import lattice_delays, lattice_positions
from delaynet_lava.tasks.cue import CueAccumulation


def network(delays: np.ndarray, seed: int | None = 3) -> Network:
    """A ring of neurons, each of which wakes the next after its delay; input 20 (recall) wakes the first."""
    n = len(delays)
    weight, ring = np.zeros((n, 40), int), np.zeros((n, n), int)
    weight[0, 20:30] = 100
    ring[np.roll(np.arange(n), -1), np.arange(n)] = 100
    hidden = Dense(Synapse(weight), Neuron(50, 4096, 4096), Synapse(ring, np.tile(delays, (n, 1))))
    readout = Dense(Synapse(np.full((2, n), 2)), Neuron(131071, 4096, 0))
    return Network((hidden, readout), provenance={} if seed is None else {"seed": seed})


def test_delays_are_read_off_the_senders():
    delays = np.array([0, 5, 62, 5])
    layer, found = activity.axonal_delays(network(delays))
    assert layer == 0
    assert found.tolist() == delays.tolist()
    synapse, neuron = Synapse(np.zeros((2, 40), int)), Neuron(9, 4096, 0)
    mixed = np.array([[0, 3], [2, 0]])
    net = Network((Dense(synapse, neuron, Synapse(np.full((2, 2), 2), mixed)),))
    with pytest.raises(InputError, match="not axonal"):
        activity.axonal_delays(net)
    with pytest.raises(InputError, match="no recurrent layer"):
        activity.axonal_delays(Network((Dense(synapse, neuron),)))


def test_the_lattice_shows_every_neuron_where_it_was_drawn():
    delays = lattice_delays(27, (0, 50, 62), 3)
    (axes,) = activity.draw_lattice(network(delays)).axes
    shown = [np.array(c._offsets3d).T for c in axes.collections]
    assert [len(points) for points in shown] == [int((delays == d).sum()) for d in (0, 50, 62)]
    positions = lattice_positions(27, 3)
    np.testing.assert_allclose(np.sort(shown[2], axis=0), np.sort(positions[delays == 62], axis=0))
    with pytest.raises(InputError, match="no seed"):
        activity.draw_lattice(network(delays, None))


def test_the_spectrum_peaks_where_the_delays_are():
    net = network(np.full(4, 39))
    inputs = np.zeros((2, 4000, 40), np.uint8)
    inputs[:, 7, 20] = 1
    seen = activity.observe(net, inputs)
    assert seen.hidden.sum() == 100
    np.testing.assert_array_equal(seen.hidden, emulate(net, inputs).spikes[0][0])
    low = seen.frequency < 30
    assert seen.frequency[low][np.argmax(seen.power[low])] == pytest.approx(25.0, abs=0.3)
    bottom = activity.draw_activity(seen, 2).axes[2]
    lines = {round(float(line.get_xdata()[0]), 6) for line in bottom.lines[1:]}
    assert lines == {25.0, 50.0, 75.0, 100.0}


def model(name: str, seed: int, values: list[float]) -> ModelFile:
    history = [{"accuracy": v, "branching": 2 * v} for v in values]
    made = {"command": f"delaynet train cue --recipe {name} --seed {seed} --set lr=1", "seed": seed}
    return ModelFile({"layers": [{"type": "Readout"}]}, {}, {**made, "history": history})


def test_seeds_of_one_training_share_a_curve():
    models = [model("a", 0, [0.5, 0.7]), model("a", 1, [0.5, 0.9, 1.0]), model("b", 0, [0.4, 0.4])]
    trainings = [learning.training(m, "m.pt") for m in models]
    assert [t.name for t in trainings] == ["a lr=1", "a lr=1", "b lr=1"]
    (axes,) = learning.draw_learning(trainings).axes
    first, second = axes.lines[:2]
    np.testing.assert_allclose(first.get_ydata(), [0.5, 0.8, 0.85])
    np.testing.assert_allclose(second.get_ydata(), [0.4, 0.4])
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["a lr=1 (2 seeds)", "b lr=1"]
    (axes,) = learning.draw_branching(trainings).axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [1.0, 1.6, 1.7])
    with pytest.raises(InputError, match="keeps no history"):
        learning.training(ModelFile({"layers": []}, {}, {}), "m.pt")


@pytest.mark.parametrize("kind", ["learning", "branching", "lattice", "activity"])
def test_each_picture_is_a_command(kind, tmp_path, capsys):
    net, trained, picture = tmp_path / "net.h5", tmp_path / "model.pt", tmp_path / "p.png"
    write(network(lattice_delays(27, (0, 50, 62), 3)), net)
    save_model(trained, model("a", 0, [0.5, 0.7]))
    source = str(trained if kind in ("learning", "branching") else net)
    more = ["--samples", "2", "--task", "cue:wait_ms=150"] if kind == "activity" else []
    with pytest.raises(SystemExit) as stop:
        main(["plot", kind, source, "-o", str(picture), *more])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"{picture}\n"
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit) as stop:
        main(["plot", kind, source, "-o", str(tmp_path / "p.gif")])
    assert stop.value.code == 2
    assert pictures.FORMATS[0] in capsys.readouterr().err


def test_a_picture_of_the_cue_task_is_of_its_samples():
    task = CueAccumulation(1, 150, 4)
    inputs, _ = task.batch("test", 0, 2)
    seen = activity.observe(network(np.zeros(4, int)), inputs)
    np.testing.assert_array_equal(seen.inputs, task.batch("test", 0, 1)[0][0])
