"""Each rule finds the network that breaks it, no other rule does, and the one at its limit passes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from delaynet_lava.formats import netx
from delaynet_lava.hw_profiles import HardwareProfile, Limit, System, load_profile
from delaynet_lava.hw_profiles.rules import RULES, Finding, check
from delaynet_lava.network import Dense, Encoder, Network, Neuron, Payload, Src, Synapse

SPIKING = 100


def chip(systems: dict[str, System] | None = None, **limits: Any) -> HardwareProfile:
    """loihi1, of which every limit is known, with some of them changed; None: unknown."""
    profile = load_profile("loihi1")
    changed = {
        key: Limit(value, profile.limits[key].unit, "unknown" if value is None else "documented", "a test")
        for key, value in limits.items()
    }
    return replace(profile, limits={**profile.limits, **changed}, systems=systems or profile.systems)


def dense(weight: Any, recurrent: Any = None, delay: int = 0, weight_exp: int = 0, **neuron: Any) -> Dense:
    """A layer with zeros for a recurrent matrix where none is given."""
    weight = np.atleast_2d(weight)
    recurrent = np.zeros((len(weight), len(weight)), int) if recurrent is None else np.atleast_2d(recurrent)
    parameters = {"vth": SPIKING, "du": 4096, "dv": 100} | neuron
    return Dense(Synapse(weight, delay, weight_exp), Neuron(**parameters), Synapse(recurrent))


def one(*args: Any, **options: Any) -> Network:
    """A network of one layer."""
    return Network((dense(*args, **options),))


def encoder(*args: Any) -> Network:
    """An encoder and a layer."""
    return Network((Encoder(Neuron(SPIKING, 4096, 100), 1), dense(2)))


def cells(weight: Any, recurrent: Any = None, **options: Any) -> Network:
    """A layer of Spiking Recurrent Cells; with recurrent weights two of them."""
    back = None if recurrent is None else Synapse(np.array(recurrent))
    into = Synapse(np.full((1 if back is None else 2, 1), weight))
    return Network((Dense(into, Src(-24576, **options), back),), decision="last")


BOARD = {"board": System(1, 2, "documented", "a test")}
CARD = {"card": System(2, None, "documented", "a test")}
LIF = ("lif", "readout")
# Rule, profile, what makes a network of a value, the last value that passes, the first that does not.
CASES: list[tuple[str, HardwareProfile, Any, Any, Any, str]] = [
    ("weight-range", chip(weight_max=252), one, [252, -256], [254, 2], "weight: 254 exceeds 252"),
    ("weight-range", chip(weight_min=-254), one, [254, -254], [2, -256], "weight: -256 is below -254"),
    (
        "weight-range",
        chip(weight_max=252),
        lambda w: one(2, w),
        252,
        254,
        "layer 0: weight_rec: 254 exceeds 252",
    ),
    ("weight-parity", chip(weight_step=4), one, [4, -8], [4, -6], "-6 at (0, 1) is not a multiple of 4 (1"),
    ("weight-exponent", chip(weight_exp_max=6), lambda e: one(2, weight_exp=e), 6, 7, "7 exceeds 6"),
    ("delay-range", chip(), lambda d: one([2, 2, 0], delay=d), 62, 63, "delay 63 exceeds 62 (2 synapses)"),
    ("threshold", chip(threshold_max=1000), lambda v: one(2, vth=v), 1000, 1001, "1001 exceeds 1000"),
    ("decay", chip(), lambda d: one(2, du=d), 1, 0, "du: 0 is below 1"),
    ("decay", chip(current_decay_max=4095), lambda d: one(2, du=d), 4095, 4096, "du: 4096 exceeds 4095"),
    ("decay", chip(), lambda d: one(2, dv=d), 4095, 4096, "dv: 4096 exceeds 4095"),
    ("bias-mantissa", chip(bias_mantissa_max=9), lambda b: one(2, bias=[b]), 9, 10, "mantissa 10 exceeds 9"),
    (
        "bias-mantissa",
        chip(bias_mantissa_min=-9),
        lambda b: one(2, bias=[b]),
        -9,
        -10,
        "mantissa -10 is below -9",
    ),
    ("bias-exponent", chip(bias_exp_max=6), lambda e: one(2, bias=[1], bias_exp=e), 6, 7, "7 exceeds 6"),
    (
        "membrane-width",
        chip(),
        lambda n: one(2, membrane_bits=n, full_scale_exp=23),
        24,
        23,
        "23 bits, the chip has 24",
    ),
    ("reset-kind", chip(), lambda r: one(2, reset=r), "zero", "subtract", "'subtract' is not one of ['zero"),
    (
        "neuron-kind",
        chip(neuron_kinds=LIF),
        lambda make: make(2),
        one,
        encoder,
        "layer 0: its kind 'encoder' is not one of ['lif', 'readout']",
    ),
    (
        "neuron-kind",
        chip(neuron_kinds=("readout",)),
        lambda v: one(2, vth=v),
        131071,
        131070,
        "its kind 'lif' is not one of ['readout']",
    ),
    ("readout", chip(), lambda v: one(2, vth=v), 131071, 131072, "131072 exceeds 131071; use 131071"),
    (
        "readout",
        chip(neuron_kinds=("lif",)),
        lambda v: one(2, vth=v),
        131070,
        131071,
        "a membrane, which the chip does not give out",
    ),
    (
        "synaptic-sum",
        chip(),
        lambda w: one(np.full((1, 129), 254), w),
        0,
        2,
        "neuron 0: its weights can add up to 0 or 32768 in a step, beyond 16 bits (1 neurons)",
    ),
    (
        "synaptic-sum",
        chip(),
        lambda w: one([-256, w], weight_exp=7),
        0,
        -2,
        "add up to -33024 or 0 in a step",
    ),
    (
        "synaptic-sum",
        chip(payload_bits_max=9),
        lambda w: one(254).with_(input_payload=Payload(w, True)),
        8,
        9,
        "add up to -65024 or 64770 in a step, beyond 16 bits",
    ),
    (
        "payload",
        chip(payload_bits_max=5),
        lambda w: one([2, 2]).with_(input_payload=Payload(w)),
        5,
        6,
        "input: whole numbers of 6 bits exceed 5 bits; encode the input as spikes",
    ),
    (
        "neuron-kind",
        chip(),
        lambda make: make(2),
        one,
        cells,
        "no LIF neurons, and it has no others; run it in",
    ),
    (
        "microcode",
        chip(microcode=1),
        lambda make: make(2),
        one,
        cells,
        "nobody has written one, and no board",
    ),
    (
        "payload",
        chip(payload_bits_max=4, microcode=None),
        lambda g: cells(2, output_bits=g),
        3,
        4,
        "layer 0: sends whole numbers of 5 bits, beyond 4 bits; train with output_bits 0",
    ),
    (
        "synaptic-sum",
        chip(payload_bits_max=9, microcode=None),
        lambda g: cells(2, [[0, 254], [0, 0]], output_bits=g),
        6,
        7,
        "add up to 0 or 64772 in a step, beyond 16 bits",
    ),
    (
        "payload",
        chip(),
        lambda w: one([2, 2]).with_(input_payload=Payload(w)),
        0,
        1,
        "whole numbers of 1 bits exceed none: its spikes are not graded",
    ),
    (
        "fan-in",
        chip(axons_in_per_core=3),
        lambda w: one([[2, 2], [0, 0]], [[2, w], [0, 0]]),
        0,
        2,
        "layer 0: neuron 0: 4 senders exceed 3 axons into a core",
    ),
    (
        "fan-out",
        chip(axons_out_per_core=2, neurons_per_core=2),
        lambda w: Network((dense(2, 2), dense([[2], [2], [2], [w]]))),
        0,
        2,
        "layer 0: neuron 0: 5 receivers take at least 3 cores, beyond 2 axons out of a core",
    ),
    (
        "synapse-memory",
        chip(synapse_memory_per_core=1),
        lambda w: one([2] * 8, w),
        0,
        2,
        "neuron 0: its synapses take 72 bits, a core holds 64",
    ),
    (
        "synapse-memory",
        chip(synapse_memory_per_core=1),
        lambda w: one([2, 2, 2, 2, w], delay=1),
        0,
        2,
        "neuron 0: its synapses take 70 bits, a core holds 64",
    ),
    (
        "neurons-per-core",
        chip(BOARD, neurons_per_core=2),
        lambda n: one(np.full((n, 1), 2)),
        4,
        5,
        "network: 5 neurons exceed 2 on each of 2 cores of board",
    ),
    (
        "neurons-per-core",
        chip(CARD, neurons_per_core=1, cores_per_chip_usable=2),
        lambda n: one(np.full((n, 1), 2)),
        4,
        5,
        "5 neurons exceed 1 on each of 4 cores of card",
    ),
]
IDS = [f"{k} {case[0]}" for k, case in enumerate(CASES)]
EVERY_CASE = pytest.mark.parametrize(("rule", "profile", "make", "good", "bad", "text"), CASES, ids=IDS)


def test_every_rule_is_tried():
    assert {case[0] for case in CASES} == set(RULES)


@EVERY_CASE
def test_each_rule_finds_its_breach_and_no_other_rule_does(rule, profile, make, good, bad, text):
    assert check(make(good), profile) == []
    (finding,) = check(make(bad), profile)
    assert finding.rule == rule
    assert finding.severity == ("warning" if rule in ("synaptic-sum", "microcode") else "error")
    assert text in str(finding)
    assert "\n" not in str(finding)


@EVERY_CASE
def test_a_profile_that_does_not_know_the_limit_finds_nothing(rule, profile, make, good, bad, text):
    nothing = HardwareProfile("nothing", "knows nothing", {}, profile.systems)
    assert check(make(bad), nothing) == []


@EVERY_CASE
def test_limits_that_are_inferred_warn_and_say_so(rule, profile, make, good, bad, text):
    limits = {key: replace(limit, status="inferred") for key, limit in profile.limits.items()}
    (finding,) = check(make(bad), replace(profile, limits=limits))
    assert (finding.rule, finding.severity) == (rule, "warning")
    assert "(an inferred limit)" in finding.problem


def test_a_network_at_every_limit_of_the_chips_passes():
    weight, delay = np.array([[254, -256]]), np.array([[62, 0]])
    for bias, du, dv in ((4095, 4096, 0), (-4096, 1, 4095)):
        neuron = Neuron(131071, du, dv, np.array([bias]), 7)
        network = Network((Dense(Synapse(weight, delay, 7), neuron),))
        for name in ("loihi1", "loihi2"):
            assert check(network, load_profile(name)) == []


def test_a_delay_without_a_synapse_breaks_nothing():
    network = Network((Dense(Synapse([[254, 0]], [[62, 500]]), Neuron(SPIKING, 4096, 100)),))
    assert check(network, load_profile("loihi2")) == []


def test_a_readout_needs_neither_reset_nor_exponent_without_a_bias():
    network = one(2, vth=131071, reset="subtract", bias_exp=7)
    assert check(network, chip(bias_exp_max=6)) == []


def test_all_findings_come_together_and_survive_the_file(tmp_path):
    network = one([254, -256], delay=63, weight_exp=7, dv=4096, reset="subtract", bias=[5])
    network = network.with_(layers=(*network.layers, dense(254, vth=262143, weight_exp=7)))
    findings = check(network, chip(weight_max=252, bias_mantissa_max=4))
    rules = ["weight-range", "weight-range", "delay-range", "decay", "bias-mantissa", "reset-kind", "readout"]
    assert [f.rule for f in findings] == rules
    assert all(f.severity == "error" for f in findings)
    recorded = network.with_(provenance={"findings": [vars(f) for f in findings]})
    netx.write(recorded, tmp_path / "net.h5")
    read = netx.read(tmp_path / "net.h5").provenance["findings"]
    assert [Finding(**entry) for entry in json.loads(json.dumps(read))] == findings


def test_an_encoder_for_a_board_is_a_warning():
    for name in ("loihi1", "loihi2"):
        (finding,) = check(encoder(), load_profile(name))
        assert (finding.rule, finding.severity) == ("neuron-kind", "warning")
    assert check(encoder(), load_profile("generic")) == []
