"""Lags beyond the chip, made exactly: chains of relay neurons that pass a spike on.

A synapse of delay d has the lag ``L = d + 1``. Where that is more than the chip's longest lag
``D = delay_max + 1``, the spike takes ``ceil(L / D)`` hops: from the sender over relays, each D steps
apart, and from the last relay to the target in the steps that are left, 1 to D. One chain serves all
targets of a sender: each taps it at its own stage. A chain stands in the layer of its sender, so what
the next layer receives late is taken from it too. Input channels (and an encoder) have no layer that
could take a chain: theirs stands in the layer they send to.

A relay is a neuron of its layer, with its decays, threshold and reset, and no bias. It must fire once
for each arriving spike and never else. That needs ``du = 4096`` (no current left in the next step) and
weights that sum to some S > vth. The largest weight is ``254 * 2**weight_exp``, so that

    m = floor(vth / (254 * 2**weight_exp)) + 1

senders must fire together: the sender and ``m - 1`` copies of it (the same incoming synapses, delays
and bias from the same rest, so the same spikes), then m relays a stage; one is enough in the last stage,
whose spikes only go to targets. A chain of h hops adds ``(m - 1) + m (h - 2) + 1`` neurons:

    added = sum over senders of m * (h - 1),    h = ceil(longest lag of the sender / D) >= 2.

A channel can't be copied, so one synapse of it must exceed vth alone, and its chain adds

    1 + m * (h - 2)    neurons (m from the recurrent synapse, which carries the later hops).

Why it is exact. Reset to zero: a relay rests at v = 0 >= 0, stays there without input (it has no bias
and no current), and an arriving spike lifts it to ``S << 6 > vth << 6``: it fires and is at 0 again.
Soft reset: a spike leaves ``r = (S - vth) << 6`` behind. S is the smallest multiple of the weights' step
``2 * 2**weight_exp`` above vth, so r is as small as it can be, and r > 0. Let R be the least fixed point
of ``R = decay(R, dv) + r``, the limit of a spike in every step. By induction the membrane after each step
stays in 0 to R: decay is monotone, an arrival leads to at most ``decay(R) + r = R``, a silent step to at
most ``decay(R)``. So nothing is ever missed (``decay(v) + (S << 6) > vth << 6`` for v >= 0), and nothing
is ever added as long as ``decay(R) <= vth << 6``. This, and that ``decay(R) + (S << 6)`` does not
saturate, is checked for every chain; what fails is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.errors import InputError
from delaynet_lava.network import Dense, Encoder, Network, Neuron, Synapse, lif, span

__all__ = ["LayerRelays", "RelayReport", "relay"]

_REMEDY = "train with shorter delays, or export with --delay-overflow retime"


@dataclass(frozen=True)
class LayerRelays:
    """What a layer got.

    Attributes:
        layer: index. neurons: how many it had.
        senders, channels: number of its neurons, and of channels before it, with a chain.
        hops: of the longest chain. parallel: m, the neurons that fire together in a chain.
        copies, relays: neurons added; added: their sum, which is the module's formula.
    """

    layer: int
    neurons: int
    senders: int
    channels: int
    hops: int
    parallel: int
    copies: int
    relays: int

    @property
    def added(self) -> int:
        """Neurons added."""
        return self.copies + self.relays


@dataclass(frozen=True)
class RelayReport:
    """What :func:`relay` did.

    Attributes:
        delay_max: longest delay allowed.
        layers: those that got neurons; none where every delay was short enough.
    """

    delay_max: int
    layers: tuple[LayerRelays, ...]

    @property
    def added(self) -> int:
        """Neurons added to the whole network."""
        return sum(one.added for one in self.layers)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        layers = [asdict(one) | {"added": one.added} for one in self.layers]
        return {"kind": "relay", "delay_max": self.delay_max, "added_neurons": self.added, "layers": layers}

    def lines(self) -> Iterator[str]:
        """What a terminal shows."""
        if not self.layers:
            yield f"no delay exceeds {self.delay_max}, nothing added"
        for one in self.layers:
            yield (
                f"layer {one.layer}: {one.added} neurons added to {one.neurons} ({one.relays} relays, "
                f"{one.copies} copies; {one.senders + one.channels} chains of up to {one.hops} hops, "
                f"{one.parallel} in parallel); spikes and membranes of the {one.neurons} stay the same"
            )


def _hops(synapse: Synapse | None, longest: int, size: int) -> np.ndarray:
    """int64 (pre,), hops that the slowest existing synapse of each sender needs; 1 is no chain."""
    if synapse is None:
        return np.ones(size, np.int64)
    stage = np.where(synapse.weight != 0, synapse.delay.astype(np.int64) // longest, 0)
    return 1 + stage.max(axis=0)


def _parallel(vth: int, weight_exp: int) -> int:
    """m: how many of the largest weights exceed the threshold together."""
    return vth // (fx.WEIGHT_MAX << weight_exp + 1 >> 1) + 1


def _drive(neuron: Neuron, weight_exp: int, where: str) -> np.ndarray:
    """int16 (m,), weights that make a relay fire once for each spike of m senders.

    Raises:
        InputError: a current that persists, a residual that could fire, or a sum that can't be held.
    """
    vth, step = neuron.vth, 1 << weight_exp + 1
    if not neuron.forgetful:
        raise InputError(
            where,
            f"du is {span(neuron.du)}, so a relay's current would outlast its spike; a relay needs "
            f"{fx.DECAY_ONE}",
            "train with current_decay=1, or export with --delay-overflow retime",
        )
    if np.ndim(neuron.dv):
        raise InputError(
            where, f"dv is {span(neuron.dv)}, different for its neurons, and a relay has that of its layer",
            _REMEDY,
        )  # fmt: skip
    if neuron.membrane_bits != fx.MEMBRANE_BITS:
        raise InputError(
            where,
            f"has membranes of {neuron.membrane_bits} bits; relays are exact with {fx.MEMBRANE_BITS} only",
            _REMEDY,
        )
    words = vth // step + 1
    threshold, drive = vth << fx.STATE_SHIFT, (words * step) << fx.STATE_SHIFT
    rest = 0
    if neuron.reset == "subtract":
        # The residual of a spike in every step; it grows until the decay takes as much as a spike leaves.
        after, grown = 0, drive - threshold
        while grown != after and rest <= threshold:
            rest = fx.decay(grown, int(neuron.dv))
            after, grown = grown, rest + drive - threshold
        if rest > threshold:
            raise InputError(
                where,
                f"what relays keep after soft resets ({words * step - vth} a spike, decay {neuron.dv}/4096) "
                f"can exceed the threshold {vth} and fire by itself",
                "use reset='zero' or a faster decay",
            )
    if rest + drive > fx.V_MAX:
        raise InputError(
            where,
            f"a relay needs {(rest + drive) >> fx.STATE_SHIFT} to exceed the threshold {vth}, the membrane "
            f"holds {fx.V_MAX >> fx.STATE_SHIFT}",
            "scale weights and threshold down",
        )
    width = _parallel(vth, weight_exp)
    weights: np.ndarray = np.full(width, 2 * (words // width), np.int16)
    weights[: words % width] += 2
    return weights


def _tapped(synapse: Synapse, taps: np.ndarray, columns: int, longest: int) -> Synapse:
    """The synapse on ``columns`` senders, each slow connection moved to the relay that serves it.

    Args:
        taps: int64 (stages, pre), column of the neuron to take at each stage; stage 0 is the sender.
    """
    weight = np.zeros((synapse.shape[0], columns), np.int16)
    delay = np.zeros_like(weight)
    post, pre = np.nonzero(synapse.weight)
    stage, left = np.divmod(synapse.delay[post, pre].astype(np.int64), longest)
    at = post, taps[stage, pre]
    weight[at], delay[at] = synapse.weight[post, pre], left
    return Synapse(weight, delay, synapse.weight_exp)


class _Host:
    """A layer that takes chains: where each neuron of a chain stands, and the matrices around it."""

    def __init__(
        self, layer: Dense, hops: np.ndarray, entering: np.ndarray, longest: int, where: str
    ) -> None:
        """Lay the neurons out behind those of the layer.

        Args:
            hops: int64 (neurons,), entering: int64 (channels,): of each sender's chain; 1 is none.
        """
        self.layer, self.longest = layer, longest
        self.neuron = neuron = lif(layer, where, "among which relays, LIF neurons, cannot stand", _REMEDY)
        if layer.recurrent is not None:
            exponent = layer.recurrent.weight_exp
        elif entering.max() > 1:
            exponent = layer.synapse.weight_exp
        else:
            # Free to choose: the finest at which one sender is enough.
            fits = [e for e in range(fx.WEIGHT_EXP_MAX + 1) if _parallel(neuron.vth, e) == 1]
            exponent = fits[0] if fits else fx.WEIGHT_EXP_MAX
        self.weights, self.exponent = _drive(neuron, exponent, where), exponent
        width = len(self.weights)
        self.first: np.ndarray | None = None
        if entering.max() > 1:
            self.first = _drive(neuron, layer.synapse.weight_exp, where)
            if len(self.first) > 1:
                largest = fx.WEIGHT_MAX << layer.synapse.weight_exp + 1 >> 1
                raise InputError(
                    f"{where}: delay",
                    f"input {int(np.argmax(entering > 1))} has a lag of more than {longest} steps, and one "
                    f"weight of at most {largest} can't lift a relay "
                    f"over the threshold {neuron.vth}; inputs can't be copied",
                    _REMEDY,
                )
        self.size = layer.size
        self.copies: list[tuple[int, int]] = []
        # (neurons of the stage before, neurons of the stage); from a channel: (channel, neurons).
        self.links: list[tuple[list[int], list[int]]] = []
        self.entries: list[tuple[int, list[int]]] = []
        self.taps = np.full((hops.max(), len(hops)), -1)
        self.entry_taps = np.full((entering.max(), len(entering)), -1)
        self.taps[0], self.entry_taps[0] = np.arange(len(hops)), np.arange(len(entering))
        for sender in np.flatnonzero(hops > 1).tolist():
            twins = self._new(width - 1)
            self.copies += [(twin, sender) for twin in twins]
            self._chain([sender, *twins], hops[sender] - 1, self.taps[1:, sender])
        for channel in np.flatnonzero(entering > 1).tolist():
            stages = entering[channel] - 1
            head = self._new(width if stages > 1 else 1)
            self.entries.append((channel, head))
            self.entry_taps[1, channel] = head[0]
            self._chain(head, stages - 1, self.entry_taps[2:, channel])

    def _new(self, count: int) -> list[int]:
        self.size += count
        return list(range(self.size - count, self.size))

    def _chain(self, senders: list[int], stages: int, taps: np.ndarray) -> None:
        for stage in range(stages):
            relays = self._new(len(self.weights) if stage < stages - 1 else 1)
            self.links.append((senders, relays))
            taps[stage] = relays[0]
            senders = relays

    def _entry_synapses(self) -> tuple[Synapse, Synapse]:
        """What the channels reach by themselves, and what they reach over relays (pre: this layer)."""
        synapse, n = self.layer.synapse, self.layer.size
        channels = synapse.shape[1]
        whole = _tapped(
            synapse,
            np.concatenate([self.entry_taps[:1], self.entry_taps[1:] + channels]),
            channels + self.size,
            self.longest,
        )
        direct = Synapse(whole.weight[:, :channels], whole.delay[:, :channels], synapse.weight_exp)
        value = whole.units[:, channels:]
        # Shifted by one more, so that an exponent of -1 shifts as well.
        word = value << 1 >> self.exponent + 1
        bad = (
            (word << self.exponent + 1 >> 1 != value)
            | (word & 1 != 0)
            | (word < fx.WEIGHT_MIN)
            | (word > fx.WEIGHT_MAX)
        )
        if bad.any():
            raise InputError(
                "delay",
                f"{int(bad.sum())} input weights with long lags (the first is {int(value[bad][0])}) are not "
                f"8-bit words at the recurrent synapse's exponent {self.exponent}, which relays send with",
                "give both synapses one exponent",
            )
        assert value.shape == (n, self.size)
        return direct, Synapse(word, whole.delay[:, channels:], self.exponent)

    def build(self) -> Dense:
        """The layer with its chains."""
        layer, n, size = self.layer, self.layer.size, self.size
        direct, entered = self._entry_synapses()
        weight, delay = np.zeros((size, size), np.int16), np.zeros((size, size), np.int16)
        weight[:n], delay[:n] = entered.weight, entered.delay
        if layer.recurrent is not None:
            back = _tapped(layer.recurrent, self.taps, size, self.longest)
            weight[:n] += back.weight
            delay[:n] += back.delay
        w_in, d_in = np.zeros((size, direct.shape[1]), np.int16), np.zeros((size, direct.shape[1]), np.int16)
        w_in[:n], d_in[:n] = direct.weight, direct.delay
        bias, u_init, v_init = np.zeros((3, size), np.int32)
        bias[:n] = self.neuron.bias
        u_init[:n], v_init[:n] = self.neuron.initial(n)
        for copy, sender in self.copies:
            for array in (weight, delay, w_in, d_in, bias, u_init, v_init):
                array[copy] = array[sender]
        for senders, relays in self.links:
            weight[np.ix_(relays, senders)] = self.weights
            delay[np.ix_(relays, senders)] = self.longest - 1
        for channel, relays in self.entries:
            assert self.first is not None
            w_in[relays, channel], d_in[relays, channel] = self.first[0], self.longest - 1
        return Dense(
            Synapse(w_in, d_in, layer.synapse.weight_exp),
            replace(self.neuron, bias=bias, u_init=u_init, v_init=v_init),
            Synapse(weight, delay, self.exponent),
        )


def relay(network: Network, delay_max: int = fx.MAX_DELAY) -> tuple[Network, RelayReport]:
    """The network with no delay over ``delay_max``, its longer lags made by chains of relays.

    The neurons of a layer keep their places; copies and relays stand behind them, and no other neuron
    listens to them but where it would have received the delayed spike. Spikes and membranes of the
    original neurons are those of the unlimited network at every step.

    Raises:
        InputError: ``delay_max`` below 0; the last layer would get relays, whose spikes would count as
            answers; currents that persist (du below 4096); a threshold that relays can't serve; input
            channels whose single weight can't exceed the threshold.
    """
    if delay_max < 0:
        raise InputError("delay_max", f"{delay_max} is below 0")
    longest = delay_max + 1
    layers = list(network.layers)
    added: list[LayerRelays] = []
    for k, layer in enumerate(network.layers):
        if isinstance(layer, Encoder):
            continue
        layer = layers[k]
        assert isinstance(layer, Dense)
        n, channels = layer.synapse.shape
        following = layers[k + 1] if k + 1 < len(layers) else None
        hops = np.maximum(
            _hops(layer.recurrent, longest, n),
            _hops(following.synapse if following is not None else None, longest, n),
        )
        from_outside = k == 0 or isinstance(layers[k - 1], Encoder)
        entering = _hops(layer.synapse if from_outside else None, longest, channels)
        if k == 0 and network.payload.bits and entering.max() > 1:
            raise InputError(
                f"layer {k}: delay",
                f"inputs with lags over {longest} steps are {network.payload}; a relay hands on spikes only",
                "train with shorter delays of the inputs",
            )
        if max(hops.max(), entering.max()) == 1:
            continue
        where = f"layer {k}"
        if following is None:
            raise InputError(
                where,
                f"has lags over {longest} steps and is the last layer, where relays would count as outputs",
                "add a readout behind it, or export with --delay-overflow retime",
            )
        try:
            host = _Host(layer, hops, entering, longest, where)
            layers[k] = host.build()
        except InputError as error:
            if error.where.startswith(where):
                raise
            raise InputError(f"{where}: {error.where}", error.problem, error.remedy) from error
        assert isinstance(following, Dense)
        layers[k + 1] = replace(following, synapse=_tapped(following.synapse, host.taps, host.size, longest))
        added.append(
            LayerRelays(
                layer=k,
                neurons=n,
                senders=int((hops > 1).sum()),
                channels=int((entering > 1).sum()),
                hops=int(max(hops.max(), entering.max())),
                parallel=len(host.weights),
                copies=len(host.copies),
                relays=host.size - n - len(host.copies),
            )
        )
    return network.with_(layers=tuple(layers)), RelayReport(delay_max, tuple(added))
