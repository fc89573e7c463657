"""Decisions without a reason are counted and said: silence, ties, readouts that spike."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from delaynet_lava import Dense, Encoder, Network, Neuron, Synapse, emulate, save
from delaynet_lava import fixedpoint as fx
from delaynet_lava.cli import main
from delaynet_lava.errors import InputError
from delaynet_lava.evaluation import Silence, evaluate
from delaynet_lava.export.extract import extract
from delaynet_lava.formats.model_file import load_model
from delaynet_lava.tasks.cue import CueAccumulation

TASK = CueAccumulation(3, 150, 0)
READ = Neuron(fx.VTH_MAX, 4096, 0)


def network(weight: int, out: np.ndarray, last: Neuron = READ) -> Network:
    """40 channels, 4 spiking neurons, two outputs."""
    hidden = Dense(Synapse(np.full((4, 40), weight)), Neuron(60, 4096, 4096))
    return Network((hidden, Dense(Synapse(out), last)))


def test_silence_and_ties_are_counted():
    quiet = evaluate(network(0, np.full((2, 4), 64)), TASK, 5).silence
    assert quiet == Silence(5, ties=5, unanswered=5)
    equal = evaluate(network(64, np.full((2, 4), 64)), TASK, 5).silence
    assert equal == Silence(5, ties=5)
    clear = evaluate(network(64, np.array([[64] * 4, [2] * 4])), TASK, 5).silence
    assert clear == Silence(5) and clear.notes() == []
    # Spiking outputs: it is they that are silent.
    spiking = network(64, np.array([[2] * 4, [4] * 4]), Neuron(1000, 4096, 4096))
    assert evaluate(spiking, TASK, 5).silence == Silence(5, ties=5, unanswered=5)
    sums = evaluate(network(64, np.full((2, 4), 64)).with_(decision="sum"), TASK, 5)
    assert sums.silence == Silence(5, ties=5)


def test_a_readout_that_spikes_is_counted_and_one_that_only_saturates_is_not():
    strong = np.full((2, 4), 254)
    spiking = network(64, strong)
    high = dataclasses.replace(spiking.layers[1], neuron=Neuron(1 << 18, 4096, 0))
    saturating = spiking.with_(layers=(spiking.layers[0], high))
    results = [evaluate(one, CueAccumulation(9, 1500, 0), 2) for one in (spiking, saturating)]
    assert results[0].silence.readout_spikes == results[0].spikes[1] > 0
    assert results[1].silence.readout_spikes == results[1].spikes[1] == 0 < results[1].v_saturations[1]
    assert "readout neurons spiked" in " ".join(results[0].silence.notes())


@dataclass
class Command:
    out: str
    err: str
    figures: dict


@pytest.fixture
def command(tmp_path, capsys):
    def run(*arguments: str) -> Command:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--json", str(tmp_path / "figures.json")])
        assert not ended.value.code
        said = capsys.readouterr()
        return Command(said.out, said.err, json.loads((tmp_path / "figures.json").read_text()))

    return run


@pytest.mark.parametrize("name", ["run", "evaluate"])
def test_commands_say_it(tmp_path, command, name):
    path = str(tmp_path / "net.h5")
    save(network(0, np.full((2, 4), 64)), path)
    said = command(name, path, "--task", "cue:cues=3,wait_ms=150", "--samples", "4")
    assert "in 4 of 4 samples the last spiking layer never spiked" in said.err
    assert "4 of 4 decisions are ties" in said.err
    figures = said.figures if name == "run" else said.figures["points"][0]
    assert (figures["ties"], figures["unanswered"], figures["readout_spikes"]) == (4, 4, 0)
    save(network(64, np.array([[64] * 4, [2] * 4])), path)
    assert command(name, path, "--task", "cue:cues=3,wait_ms=150", "--samples", "4").err == ""


def test_what_an_encoder_does_not_use_is_refused():
    with pytest.raises(InputError, match="biasExp"):
        Encoder(Neuron(50, 4096, 40, bias_exp=5), 2)


@pytest.mark.parametrize("value", [-0.01, -1.0, float("inf"), float("nan")])
def test_a_threshold_below_0_is_not_taken_for_0(repository, value):
    model = load_model(repository / "delaynet_lava" / "models" / "cue_loihi2.pt")
    assert extract(model).layers[0].neuron.vth > 0
    model.state_dict["0.neuron.vth"] = torch.full_like(model.state_dict["0.neuron.vth"], value)
    with pytest.raises(InputError, match=r"layer 0.*(threshold|vth)"):
        extract(model)


def test_a_current_stays_at_the_upper_end_of_its_range_and_leaves_the_lower_one():
    half = 1 << 23
    assert fx.wrap_u(half) == half and not fx.u_overflows(half)
    assert fx.wrap_u(-half) == half and fx.u_overflows(-half)
    weight = np.full((1, 512), -256)  # 512 * 256 << 6 is 2**23
    negative = Network((Dense(Synapse(weight), Neuron(1 << 18, 4096, 4096)),))
    trace = emulate(negative, np.ones((1, 3, 512), np.uint8), ("voltage",))
    assert trace.u_wraps == [2] and trace.voltage[0][0, 1:, 0].tolist() == [fx.V_MAX] * 2
