"""What a chip demands of a network: one small function a rule, all findings together.

A rule takes a :class:`Network` and a :class:`HardwareProfile` and yields breaches; it changes nothing.
A limit that the profile does not know is not checked. Rules on cores find only what no placement can
cure: a network may spread over as many cores as it likes, a single neuron can't.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.hw_profiles import HardwareProfile
from delaynet_lava.network import Dense, Encoder, Layer, Network, Neuron, Synapse

__all__ = ["RULES", "Finding", "check"]


@dataclass(frozen=True)
class Finding:
    """One breach: which rule, how grave, where, actual value, limit and remedy in one line.

    Attributes:
        severity: "error", which keeps an export from writing, or "warning".
    """

    rule: str
    severity: str
    where: str
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.severity} [{self.rule}] {self.where}: {self.problem}"
        return f"{text}; {self.remedy}" if self.remedy else text


Breach = tuple[str, str, str, str]
"""Name of the limit, where, problem, remedy."""
Rule = Callable[[Network, HardwareProfile], Iterator[Breach]]
_SIMULATE = "run it in the emulator or on Lava's simulator"


def _synapses(network: Network) -> Iterator[tuple[str, Synapse]]:
    for i, layer in enumerate(network.layers):
        if isinstance(layer, Dense):
            yield f"layer {i}: weight", layer.synapse
            if layer.recurrent is not None:
                yield f"layer {i}: weight_rec", layer.recurrent


def _lif(network: Network) -> Iterator[tuple[int, Layer, Neuron]]:
    """Index, layer and neurons of those of leaky integrate-and-fire neurons; of others no limit is known."""
    for i, layer in enumerate(network.layers):
        if isinstance(layer.neuron, Neuron):
            yield i, layer, layer.neuron


def _arriving(layer: Dense) -> list[Synapse]:
    return [layer.synapse] if layer.recurrent is None else [layer.synapse, layer.recurrent]


def _range(
    profile: HardwareProfile,
    limit: str,
    where: str,
    values: tuple[int, int],
    name: str = "",
    remedy: str = "",
) -> Iterator[Breach]:
    """A least and a largest value against ``<limit>_min`` and ``<limit>_max``."""
    low, high = profile.get(f"{limit}_min"), profile.get(f"{limit}_max")
    if low is not None and values[0] < low:
        yield f"{limit}_min", where, f"{name}{values[0]} is below {low}", remedy
    if high is not None and values[1] > high:
        yield f"{limit}_max", where, f"{name}{values[1]} exceeds {high}", remedy


def weight_range(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """Weights fit the chip's words."""
    for where, synapse in _synapses(network):
        values = int(synapse.weight.min()), int(synapse.weight.max())
        yield from _range(profile, "weight", where, values, remedy="scale weights and threshold down")


def weight_parity(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """Weights are multiples of the chip's step (with sign: even)."""
    step = profile.get("weight_step")
    for where, synapse in _synapses(network):
        between = np.argwhere(synapse.weight % (step or 1))
        if len(between):
            i, j = (int(k) for k in between[0])
            problem = (
                f"{synapse.weight[i, j]} at ({i}, {j}) is not a multiple of {step} ({len(between)} such)"
            )
            yield "weight_step", where, problem, f"requantise in steps of {step}"


def weight_exponent(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """Weight exponents fit."""
    for where, synapse in _synapses(network):
        values = synapse.weight_exp, synapse.weight_exp
        yield from _range(profile, "weight_exp", where, values, "weight_exp ", "scale the threshold down")


def delay_range(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """Delays of existing synapses fit the chip's delay word."""
    limit = profile.get("delay_max")
    for where, synapse in _synapses(network):
        if limit is not None and synapse.max_delay > limit:
            count = int(np.count_nonzero((synapse.delay > limit) & (synapse.weight != 0)))
            yield (
                "delay_max",
                where.replace("weight", "delay"),
                f"delay {synapse.max_delay} exceeds {limit} ({count} synapses)",
                f"train with delays of at most {limit} (lags of at most {limit + 1} steps), "
                "or export with --delay-overflow relay or retime",
            )


def threshold(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """Thresholds of neurons that spike fit the chip's mantissa."""
    limit = profile.get("threshold_max")
    for i, _, neuron in _lif(network):
        vth = neuron.vth
        if limit is not None and vth > limit and not neuron.is_readout:
            yield (
                "threshold_max",
                f"layer {i}: vth",
                f"{vth} exceeds {limit}",
                "scale weights and threshold down",
            )


def decay(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """Decays fit the chip's registers. An encoder has no current."""
    limit = profile.get("voltage_decay_max")
    for i, layer, neuron in _lif(network):
        decays = neuron.decays(layer.size)
        (du_low, dv_low), (du, dv) = decays.min(axis=1).tolist(), decays.max(axis=1).tolist()
        if isinstance(layer, Dense):
            remedy = "choose another current_decay"
            yield from _range(profile, "current_decay", f"layer {i}: du", (du_low, du), remedy=remedy)
        kinds = len(np.unique(decays, axis=1).T)
        most = profile.get("decays_per_population_max")
        if most is not None and kinds > most:
            yield (
                "decays_per_population_max",
                f"layer {i}: {'dv' if dv != dv_low else 'du'}",
                f"neurons with {kinds} different decays in one population, which has {most}",
                "train with shared_param=True; the emulator and Lava's simulator run it as it is",
            )
        if limit is not None and dv > limit:
            yield (
                "voltage_decay_max",
                f"layer {i}: dv",
                f"{dv} exceeds {limit}",
                f"use voltage_decay of at most {limit}/4096",
            )


def bias_mantissa(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """Mantissas of biases fit."""
    for i, _, neuron in _lif(network):
        values = int(neuron.bias.min()), int(neuron.bias.max())
        remedy = "a larger exponent takes a smaller mantissa"
        yield from _range(profile, "bias_mantissa", f"layer {i}: bias", values, "mantissa ", remedy)


def bias_exponent(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """Exponents of biases that are there fit."""
    limit = profile.get("bias_exp_max")
    for i, _, neuron in _lif(network):
        exponent = neuron.bias_exp
        if limit is not None and exponent > limit and np.any(neuron.bias):
            yield (
                "bias_exp_max",
                f"layer {i}: bias",
                f"exponent {exponent} exceeds {limit}",
                "shift the mantissa",
            )


def membrane_width(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """Membranes have the chip's width; narrower ones are run by the emulator and in training only."""
    bits = profile.get("state_bits")
    for i, layer in enumerate(network.layers):
        if bits is not None and layer.neuron.membrane_bits != bits:
            problem = f"{layer.neuron.membrane_bits} bits, the chip has {bits}"
            yield "state_bits", f"layer {i}: membrane", problem, "train with the chip's width"


def reset_kind(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """The chip knows the reset. A readout never spikes and needs none."""
    known = profile.get("resets")
    for i, _, neuron in _lif(network):
        reset = neuron.reset
        if known is not None and reset not in known and not neuron.is_readout:
            where, problem = f"layer {i}: reset", f"{reset!r} is not one of {list(known)}"
            yield "resets", where, problem, f"train with reset={known[0]!r}"


def neuron_kind(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """The chip runs neurons that spike, encoders where there are any, and cells where it takes programs."""
    known, programs = profile.get("neuron_kinds"), profile.get("microcode")
    for i, layer in enumerate(network.layers):
        if layer.neuron.kind == "src":
            if programs == 0:
                problem = "Spiking Recurrent Cells are no LIF neurons, and it has no others"
                yield "microcode", f"layer {i}", problem, _SIMULATE
            continue
        kind = "encoder" if isinstance(layer, Encoder) else "lif"
        if known is None or kind in known or (kind == "lif" and layer.neuron.is_readout):
            continue
        remedy = "encode the input as spikes" if kind == "encoder" else ""
        yield "neuron_kinds", f"layer {i}", f"its kind {kind!r} is not one of {list(known)}", remedy


def microcode(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """A cell that a chip could run, but for which nobody has written the program, is named."""
    for i, layer in enumerate(network.layers):
        if layer.neuron.kind == "src" and profile.get("microcode"):
            yield (
                "microcode",
                f"layer {i}",
                "a neuron of microcode could be a Spiking Recurrent Cell (sums, products, comparisons: "
                "inferred); nobody has written one, and no board runs this file",
                _SIMULATE,
            )


def readout(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """The membrane of a readout can be read, and its threshold is one that the chip can hold.

    A readout (threshold of 131071 or more) must never spike; SLAYER's ``Affine`` asks for 262143.
    """
    known, limit = profile.get("neuron_kinds"), profile.get("threshold_max")
    for i, _, neuron in _lif(network):
        if not neuron.is_readout:
            continue
        if known is not None and "readout" not in known:
            problem, remedy = "its answer is a membrane, which the chip does not give out", "let it spike"
            yield "neuron_kinds", f"layer {i}", problem, remedy
        if limit is not None and neuron.vth > limit:
            remedy = f"use {limit}: it stays silent while no membrane exceeds {limit} << 6"
            yield "threshold_max", f"layer {i}: vth", f"{neuron.vth} exceeds {limit}", remedy


def payload(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """The chip's spikes carry numbers of so many bits; 0: none."""
    limit = profile.get("payload_bits_max")
    can = f"{limit} bits" if limit else "none: its spikes are not graded"
    if limit is not None and network.payload.bits > limit and isinstance(network.layers[0], Dense):
        yield "payload_bits_max", "input", f"{network.payload} exceed {can}", "encode the input as spikes"
    for i, layer in enumerate(network.layers):
        sent = layer.neuron.sends
        if limit is not None and sent.bits > limit:
            yield "payload_bits_max", f"layer {i}", f"sends {sent}, beyond {can}", "train with output_bits 0"


def synaptic_sum(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """What can arrive together at a neuron fits the sum's width, whatever the input.

    ``a_i = sum_j w_ij 2^exp x_j`` over all that is positive, and all that is negative, of both synapses; x_j
    is 1, or the least or largest payload. The current holds it shifted left by 6, and wraps beyond.
    """
    bits = profile.get("synaptic_sum_bits")
    for i, layer in enumerate(network.layers):
        if bits is None or not isinstance(layer, Dense):
            continue
        least, most = layer.synapse.sums(network.payload_into(i))
        if layer.recurrent is not None:
            back = layer.recurrent.sums(layer.neuron.sends)
            least, most = (a + b for a, b in zip((least, most), back, strict=True))
        # Two's complement reaches one further down than up.
        excess = np.maximum(most, -least - 1) - ((1 << bits - 1) - 1)
        worst = int(excess.argmax())
        if excess[worst] > 0:
            yield (
                "synaptic_sum_bits",
                f"layer {i}: neuron {worst}",
                f"its weights can add up to {least[worst]} or {most[worst]} in a step, beyond {bits} bits "
                f"({np.count_nonzero(excess > 0)} neurons)"
                + (_wrapping(least, most, profile) if isinstance(layer.neuron, Neuron) else ""),
                "scale weights and threshold down",
            )


def _wrapping(least: np.ndarray, most: np.ndarray, profile: HardwareProfile) -> str:
    bits = profile.get("state_bits")
    if bits is None:
        return ""
    over = np.maximum(most, -least) << fx.STATE_SHIFT > 1 << (bits - 1)
    return f"; {np.count_nonzero(over)} of them wrap the current's {bits} bits at once" * bool(over.any())


def fan_in(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """Every neuron's senders fit the axons into one core: an axon for each."""
    limit = profile.get("axons_in_per_core")
    for i, layer in enumerate(network.layers):
        if limit is None or not isinstance(layer, Dense):
            continue
        senders = np.count_nonzero(np.hstack([s.weight for s in _arriving(layer)]), axis=1)
        worst = int(np.argmax(senders))
        if senders[worst] > limit:
            where, problem = f"layer {i}: neuron {worst}", f"{senders[worst]} senders exceed {limit} axons"
            yield "axons_in_per_core", where, f"{problem} into a core", "prune its synapses"


def fan_out(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """Every neuron's receivers fit on as many cores as one core has axons out: an axon for each core."""
    limit, size = profile.get("axons_out_per_core"), profile.get("neurons_per_core")
    if limit is None or size is None:
        return
    for i, layer in enumerate(network.layers):
        after = network.layers[i + 1].synapse if i + 1 < len(network.layers) else None
        weights = [s.weight for s in (layer.recurrent, after) if s is not None]
        if not weights:
            continue
        receivers = np.count_nonzero(np.vstack(weights), axis=0)
        worst = int(receivers.argmax())
        cores = -(-int(receivers[worst]) // size)
        if cores > limit:
            problem = f"{receivers[worst]} receivers take at least {cores} cores, beyond {limit} axons"
            yield "axons_out_per_core", f"layer {i}: neuron {worst}", f"{problem} out of a core", "prune"


def synapse_memory(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """Every neuron's synapses fit one core's memory, at the bits that weights and delays take at least."""
    words, width = profile.get("synapse_memory_per_core"), profile.get("synapse_word_bits")
    bits = profile.get("weight_bits")
    if words is None or width is None or bits is None:
        return
    for i, layer in enumerate(network.layers):
        if not isinstance(layer, Dense):
            continue
        taken = np.zeros(layer.size, np.int64)
        for synapse in _arriving(layer):
            delayed = (profile.get("delay_bits") or 0) if synapse.max_delay else 0
            taken += np.count_nonzero(synapse.weight, axis=1) * (bits + delayed)
        worst = int(taken.argmax())
        if taken[worst] > words * width:
            yield (
                "synapse_memory_per_core",
                f"layer {i}: neuron {worst}",
                f"its synapses take {taken[worst]} bits, a core holds {words * width}",
                "prune its synapses",
            )


def neurons_per_core(network: Network, profile: HardwareProfile) -> Iterator[Breach]:
    """All neurons fit the largest system that the profile names."""
    a_core = profile.get("neurons_per_core")
    sizes = {name: profile.cores(name) for name in profile.systems}
    known = {name: cores for name, cores in sizes.items() if cores is not None}
    if a_core is None or not known:
        return
    name, cores = max(known.items(), key=lambda item: item[1])
    neurons = sum(layer.size for layer in network.layers)
    if neurons > a_core * cores:
        problem = f"{neurons} neurons exceed {a_core} on each of {cores} cores of {name}"
        yield "neurons_per_core", "network", problem, "use fewer neurons"


RULES: dict[str, tuple[str, Rule]] = {
    "weight-range": ("error", weight_range),
    "weight-parity": ("error", weight_parity),
    "weight-exponent": ("error", weight_exponent),
    "delay-range": ("error", delay_range),
    "threshold": ("error", threshold),
    "decay": ("error", decay),
    "bias-mantissa": ("error", bias_mantissa),
    "bias-exponent": ("error", bias_exponent),
    "membrane-width": ("error", membrane_width),
    "reset-kind": ("error", reset_kind),
    "neuron-kind": ("error", neuron_kind),
    "microcode": ("warning", microcode),
    "readout": ("error", readout),
    "payload": ("error", payload),
    # Declared by Lava's models, enforced by none of them; and no input may ever bring it about.
    "synaptic-sum": ("warning", synaptic_sum),
    "fan-in": ("error", fan_in),
    "fan-out": ("error", fan_out),
    "synapse-memory": ("error", synapse_memory),
    "neurons-per-core": ("error", neurons_per_core),
}


def check(network: Network, profile: HardwareProfile) -> list[Finding]:
    """Run every rule; findings in the order of the rules.

    A breach of a limit that is only inferred is a warning: it may not be one.
    """
    findings = []
    for name, (severity, rule) in RULES.items():
        for limit, where, problem, remedy in rule(network, profile):
            inferred = profile.limits[limit].status == "inferred"
            findings.append(
                Finding(
                    name,
                    "warning" if inferred else severity,
                    where,
                    problem + " (an inferred limit)" * inferred,
                    remedy,
                )
            )
    return findings
