"""Random networks and inputs for hypothesis: ones that spike, neither silent nor always on.

Hypothesis draws sizes, densities, exponents, decays and seeds; the matrices come from a seeded
generator, and each threshold from the membranes that the emulator finds where the layer never
spikes. No current goes beyond ``3 * 2**23`` in one step, where Lava's single wrap and the chip's
register part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from delaynet_lava import fixedpoint as fx
from delaynet_lava.emulator import emulate
from delaynet_lava.network import Decision, Dense, Encoder, Layer, Network, Neuron, Payload, Src, Synapse

__all__ = ["graded_networks", "inputs_for", "networks", "src_networks", "synapses", "with_initial_states"]

# With |a| <= 2**18, |decay(u) + (a << 6)| <= 3 * 2**23 for every u of 24 bits.
FAN_IN_LIMIT = 1 << 18
UNREACHED = 1 << 18
READOUT_THRESHOLDS = (fx.VTH_MAX, fx.VTH_MAX + 1, (1 << 18) - 1)
PROBE_STEPS = 100


def inputs_for(
    network: Network,
    steps: int = 120,
    batch: int = 2,
    rate: float = 0.15,
    seed: int = 0,
    whole: bool = False,
) -> np.ndarray:
    """Integers (batch, steps, channels): spikes, values of an encoder, or payloads.

    Payloads are as large as their bits allow, but no sum that arrives in a step exceeds
    :data:`FAN_IN_LIMIT`; ``whole`` takes them without that bound.
    """
    rng = np.random.default_rng(seed)
    active = rng.random((batch, steps, network.channels)) < rate
    payload, first = network.payload, network.layers[0]
    if not payload.bits:
        return active.astype(np.uint8)
    reach = payload.magnitude
    if isinstance(first, Dense) and not whole:
        sums = np.abs(first.synapse.weight.astype(np.int64)).sum(axis=1) << first.synapse.weight_exp
        reach = max(1, FAN_IN_LIMIT // 2 // max(1, int(sums.max())))
    low, high = max(payload.low, -reach), min(payload.high, reach)
    return (active * rng.integers(low, high, active.shape, endpoint=True)).astype(payload.dtype)


@st.composite
def synapses(
    draw: st.DrawFn,
    post: int,
    pre: int,
    max_delay: int = fx.MAX_DELAY,
    max_weight_exp: int = 3,
    fan_in: int = FAN_IN_LIMIT,
    overflow: bool = False,
) -> Synapse:
    """Weights of one sign or both, delays: none, one for all, one a sender, or one a synapse.

    Args:
        fan_in: largest sum of a row's absolute weights, exponent included; what would go beyond is
            left out.
        overflow: with the largest weights and exponent, so that few spikes wrap a current.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.5, 1.0] if overflow else [0.1, 0.4, 1.0]))
    lowest, highest = draw(st.sampled_from([(-1.0, 1.0), (-1.0, 1.0), (-0.25, 1.0), (-1.0, 0.0)]))
    largest = 127 if overflow else draw(st.sampled_from([4, 40, 127]))
    weight_exp = fx.WEIGHT_EXP_MAX if overflow else draw(st.integers(0, max_weight_exp))
    weight = 2 * np.rint(rng.uniform(lowest, highest, (post, pre)) * largest).astype(int)
    weight[rng.random(weight.shape) < 0.02] = fx.WEIGHT_MIN if lowest == -1 else fx.WEIGHT_MAX
    weight[rng.random(weight.shape) >= density] = 0
    weight[np.cumsum(np.abs(weight) << weight_exp, axis=1) > fan_in] = 0
    kind = draw(st.sampled_from(["none", "one", "axonal", "synaptic"]))
    longest = draw(st.one_of(st.integers(0, max_delay), st.just(max_delay)))
    delay = {
        "none": np.zeros((post, pre), int),
        "one": np.full((post, pre), longest),
        "axonal": np.tile(rng.integers(0, longest, pre, endpoint=True), (post, 1)),
        "synaptic": rng.integers(0, longest, (post, pre), endpoint=True),
    }[kind]
    return Synapse(weight, delay, weight_exp)


def _decays(overflow: bool) -> st.SearchStrategy[int]:
    # An overflow needs a state that remembers.
    special = [0, 1] if overflow else [0, 1, fx.DECAY_ONE - 1, fx.DECAY_ONE, fx.DECAY_ONE]
    return st.one_of(st.sampled_from(special), st.integers(20, 1000))


def _with_threshold(
    layers: Sequence[Layer], stay_below: float, seed: int, payload: Payload | None = None
) -> Layer:
    """The last layer, with the threshold that this share of its membranes would stay below."""
    probe = Network(tuple(layers), input_payload=payload)
    trace = emulate(probe, inputs_for(probe, PROBE_STEPS, 1, seed=seed), ("voltage",), layers=[-1])
    height = int(np.clip(np.quantile(trace.voltage[len(layers) - 1], stay_below), 0, fx.V_MAX))
    return replace(layers[-1], neuron=replace(layers[-1].neuron, vth=height >> fx.STATE_SHIFT))


@st.composite
def networks(
    draw: st.DrawFn,
    min_layers: int = 1,
    max_layers: int = 4,
    max_neurons: int = 24,
    max_delay: int = fx.MAX_DELAY,
    max_weight_exp: int = 3,
    resets: Sequence[str] = ("zero", "subtract"),
    encoder: bool | None = None,
    readout: bool | None = None,
    overflow: bool = False,
    varied: bool = False,
) -> Network:
    """Feed-forward and recurrent layers with biases and delays of every kind.

    Args:
        min_layers, max_layers: number of layers with neurons, an encoder included.
        encoder: whether the first layer is one; None: either.
        readout: whether the last layer has a threshold of 17 bits or more; None: either.
        overflow: with weights that wrap currents and saturate membranes.
        varied: with decays of its own for each neuron.
    """
    seed = draw(st.integers(0, 2**16))
    fewest = min(8, max_neurons) if overflow else 1
    channels = draw(st.integers(fewest, max_neurons))
    layers: list[Layer] = []
    for k in range(draw(st.integers(min_layers, max_layers))):
        size = draw(st.integers(fewest, max_neurons))
        du, dv = draw(_decays(overflow)), draw(_decays(overflow))
        if not overflow and max(du, dv) <= 1:
            # A membrane that sums a current that sums its input saturates in any case.
            dv = fx.DECAY_ONE
        here = channels if k == 0 and encoder else size
        if varied:
            rng = np.random.default_rng(seed + k)
            du, dv = (rng.choice([d, 20, 700, 4095], here) for d in (du, dv))
        neuron = Neuron(
            vth=UNREACHED,
            du=du,
            dv=dv,
            reset=draw(st.sampled_from(list(resets))),
        )
        if k == 0 and (draw(st.booleans()) if encoder is None else encoder):
            weight, bias = draw(st.integers(1, fx.WEIGHT_MAX)), draw(st.integers(-100, 100))
            layers.append(Encoder(neuron, channels, weight, bias))
        else:
            pre = layers[-1].size if layers else channels
            recurrent = draw(st.booleans())
            share = FAN_IN_LIMIT // (2 if recurrent else 1)
            options = (max_delay, max_weight_exp, share, overflow)
            reach = draw(st.sampled_from([0, 0, 30, -fx.BIAS_MANT_MIN - 1]))
            values = np.random.default_rng(seed + k).integers(-reach, reach, size, endpoint=True)
            neuron = replace(neuron, bias=values, bias_exp=draw(st.sampled_from([fx.BIAS_EXP, 0, 3, 7])))
            layers.append(
                Dense(
                    draw(synapses(size, pre, *options)),
                    neuron,
                    draw(synapses(size, size, *options)) if recurrent else None,
                )
            )
        layers[-1] = _with_threshold(layers, draw(st.floats(0.8, 0.98)), seed)
    if draw(st.booleans()) if readout is None else readout:
        neuron = replace(layers[-1].neuron, vth=draw(st.sampled_from(READOUT_THRESHOLDS)))
        layers[-1] = replace(layers[-1], neuron=neuron)
    return Network(tuple(layers))


@st.composite
def with_initial_states(draw: st.DrawFn, network: Network) -> Network:
    """The network with a membrane and a current before step 0: any, or what a bias takes to rest."""
    layers = []
    for layer in network.layers:
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        kind = draw(st.sampled_from(["rest", "quiet", "small", "small", "any"]))
        neuron = layer.neuron.quietened() if kind == "quiet" else layer.neuron
        if kind in ("small", "any"):
            reach = fx.V_MAX if kind == "any" else min(fx.V_MAX, 2 * (min(neuron.vth, fx.VTH_MAX) << 6) + 1)
            neuron = replace(neuron, v_init=rng.integers(-reach, reach, layer.size, endpoint=True))
            if isinstance(layer, Dense):
                neuron = replace(neuron, u_init=rng.integers(-reach, reach, layer.size, endpoint=True) // 8)
        layers.append(replace(layer, neuron=neuron))
    return network.with_(layers=tuple(layers))


@st.composite
def graded_networks(draw: st.DrawFn, max_bits: int = fx.PAYLOAD_BITS_MAX, **options) -> Network:
    """:func:`networks` with payloads of 1 to 24 bits as inputs, and small weights where those are large."""
    network = draw(networks(encoder=False, **options))
    bits = draw(st.one_of(st.integers(1, max_bits), st.just(max_bits)))
    payload = Payload(bits, draw(st.booleans()))
    layers = list(network.layers)
    first = layers[0].synapse
    weight = first.weight // 2
    if bits > 4:
        most = draw(st.sampled_from([1, 3, 20]))
        weight = np.sign(weight) * np.minimum(np.abs(weight), most)
    exponent = first.weight_exp if bits < 12 else 0
    layers[0] = replace(layers[0], synapse=Synapse(2 * weight, first.delay, exponent))
    for k in range(len(layers)):
        if not layers[k].neuron.is_readout:
            unreached = replace(layers[k], neuron=replace(layers[k].neuron, vth=UNREACHED))
            layers[k] = _with_threshold([*layers[:k], unreached], draw(st.floats(0.8, 0.98)), k, payload)
    return network.with_(layers=tuple(layers), input_payload=payload)


def _cells(draw: st.DrawFn, size: int, shift: int, bits: int) -> Src:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    activation, slow = (
        draw(st.sampled_from(["parabola", "parabola", "clip"])),
        draw(st.sampled_from(fx.SRC_SLOW)),
    )
    return Src(
        rng.integers(fx.SRC_BIAS_MIN, fx.SRC_BIAS_MAX[activation, slow], size, endpoint=True),
        draw(st.sampled_from([fx.SRC_DECAY, 100, 1000, 4096])),
        shift,
        draw(st.sampled_from(["parabola", "parabola", "clip", "sign"])),
        activation,
        slow,
        bits,
    )


def _speaking(layers: Sequence[Layer], payload: Payload | None) -> Layer:
    """The last layer, of cells, shifted so far that some of them spike."""
    layer = layers[-1]
    for shift in range(-6, 11, 2):
        tried = replace(layer, neuron=replace(layer.neuron, shift=shift + layer.neuron.shift))
        probe = Network((*layers[:-1], tried), input_payload=payload, decision=Decision("sum"))
        if emulate(probe, inputs_for(probe, PROBE_STEPS, 1)).spike_counts[-1].sum() > 2:
            return tried
    return layer


@st.composite
def src_networks(draw: st.DrawFn, max_layers: int = 4, max_neurons: int = 20, **options) -> Network:
    """Stacks of Spiking Recurrent Cells, LIF neurons among them, in which what arrives makes cells fire.

    Payloads of 0 to 8 fraction bits, axonal and synaptic delays, recurrent ones too; the shift is the least
    with which a layer speaks, nearly.
    """
    channels = draw(st.integers(1, max_neurons))
    bits, layers = draw(st.sampled_from([0, 0, 4])), []
    payload = Payload(bits) if bits else None
    for k in range(draw(st.integers(1, max_layers))):
        size = draw(st.integers(1, max_neurons))
        recurrent = draw(st.booleans())
        into = draw(synapses(size, layers[-1].size if layers else channels, max_weight_exp=0, **options))
        back = draw(synapses(size, size, max_weight_exp=0, **options)) if recurrent else None
        if k and draw(st.sampled_from([False, False, True])):
            neuron: Neuron | Src = Neuron(
                draw(st.integers(100 << bits, 1000 << bits)), 4096, draw(st.integers(50, 900))
            )
            bits = 0
        else:
            sent = bits if recurrent else draw(st.sampled_from([0, 0, 1, 4, 8]))
            neuron = _cells(draw, size, draw(st.integers(0, 2)), sent)
            bits = sent
        layers.append(Dense(into, neuron, back))
        if isinstance(neuron, Src):
            layers[-1] = _speaking(layers, payload)
    return Network(tuple(layers), input_payload=payload, decision=Decision("sum"))
