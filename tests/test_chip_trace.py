"""What a Loihi 2 itself computed, as published with the NIR paper: one LIF neuron over 1000 steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import delaynet_lava
from delaynet_lava import Dense, Network, Neuron, Synapse, Trace
from delaynet_lava.trace import BOARD, PROBE_AT_SPIKE

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "nir"
CHIP = Path(__file__).resolve().parent / "files" / "loihi2_lif.csv"
NETWORK = Network((Dense(Synapse([[10]]), Neuron(25, 4096, 163)),))


def recorded(path: Path, backend: str) -> tuple[np.ndarray, Trace]:
    """Input and trace of a published recording: input, membrane, spike a step."""
    if not path.is_file():
        pytest.skip(f"no published recording at ../shared/data/nir/{path.name}")
    x, v, s = np.loadtxt(path, delimiter=",").T.reshape(3, 1, -1, 1)
    spikes, voltage = {0: s.astype(np.uint8)}, {0: v.astype(np.int32)}
    assert np.array_equal(voltage[0], v)
    trace = Trace(backend, 1000, 1, [voltage[0][:, -1]], [], [], [], spikes, voltage)
    return x.astype(np.uint8), trace


def shifts(x: np.ndarray, trace: Trace) -> tuple[int, Trace]:
    """Our trace on the recording's time axis, and by how many steps the recording is earlier."""
    for late in (0, 1, 2):
        ours = delaynet_lava.emulate(NETWORK, np.pad(x, ((0, 0), (0, late), (0, 0))), ("spikes", "voltage"))
        spikes = {0: ours.spikes[0][:, late:]}
        if np.array_equal(spikes[0], trace.spikes[0]):
            voltage = {0: ours.voltage[0][:, late:]}
            return late, Trace("emulator", 1000, 1, ours.final_voltage, [], [], [], spikes, voltage)
    raise AssertionError("no shift gives the recorded spikes")


def test_the_emulator_computes_what_the_chip_did():
    x, chip = recorded(CHIP, BOARD)
    late, ours = shifts(x, chip)
    assert late == 0
    assert chip.spikes[0].sum() == 4
    result = ours.compare(chip)
    assert result and result.probe == 4
    assert "4 membranes read 128 at a spike, as a board's probe does" in str(result)
    assert ours.compare(chip).compared == chip.compare(ours).compared == 2001
    assert chip.compare(ours).probe == 4
    at = chip.spikes[0] != 0
    assert (chip.voltage[0][at] == PROBE_AT_SPIKE).all() and (ours.voltage[0][at] == 0).all()


def test_the_recording_is_the_published_one():
    published = DATA / "lif_lava_loihi_fixed.csv"
    if not published.is_file():
        pytest.skip("no published recording at ../shared/data/nir")
    assert np.array_equal(np.loadtxt(CHIP, delimiter=","), np.loadtxt(published, delimiter=","))


def test_lavas_simulator_as_published():
    x, lava = recorded(DATA / "lif_lava_cpu_fixed.csv", "lava")
    _, ours = shifts(x, lava)
    result = ours.compare(lava)
    assert result and result.probe == 0


def test_nothing_else_passes_as_a_probe():
    """Negative control: another backend, a value that is not 128, and a step without a spike."""
    x, chip = recorded(CHIP, BOARD)
    _, ours = shifts(x, chip)
    other = Trace("lava", 1000, 1, chip.final_voltage, [], [], [], chip.spikes, chip.voltage)
    assert ours.compare(other).mismatches == 4
    voltage = chip.voltage[0].copy()
    voltage[0, np.argmax(chip.spikes[0]), 0] = 64
    quiet = int(np.argmin(chip.spikes[0]))
    voltage[0, quiet, 0] = PROBE_AT_SPIKE
    spoilt = Trace(BOARD, 1000, 1, chip.final_voltage, [], [], [], chip.spikes, {0: voltage})
    result = ours.compare(spoilt)
    assert (result.mismatches, result.probe) == (2, 3)
    blind = Trace(BOARD, 1000, 1, chip.final_voltage, [], [], [], {}, chip.voltage)
    assert ours.compare(blind).mismatches == 4
