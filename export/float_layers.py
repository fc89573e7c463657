"""Layers of real-numbered neurons: how they run, and the integers nearest to them.

Per step t of a layer, ``x`` what the layer before sends, ``s`` its own spikes:

    u = keep_u u + W x[t - d] + R s[t - 1 - d_rec] + bias_u
    v = keep_v v + u + bias_v                       (with ``late``: the u of the step before)
    s = v > threshold;  v = 0 or v - threshold where s

An input acts in the step itself here, one step later in a :class:`Network`: there layer k is k + 1 steps
late.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.errors import InputError
from delaynet_lava.network import DELAY_LIMIT, Dense, Neuron, Synapse, lif
from delaynet_lava.neuron import BIAS_EXP_MAX

__all__ = ["FINE_THRESHOLD", "FloatLayer", "Rounding", "bias_word", "fill", "quantise", "run", "words"]

FINE_THRESHOLD = 512
"""A threshold of this many integers or more is rounded by less than 0.1 %."""
_WHOLE = 1e-6
# Thresholds above leave the membrane less than three thresholds of room.
_COARSE_THRESHOLD = fx.VTH_MAX // 4


@dataclass(frozen=True, eq=False)
class FloatLayer:
    """One layer; all of ``float64``, weights (post, pre) with every gain in them.

    Attributes:
        threshold: (neurons,); None: a readout.
        late: whether the membrane takes the current of the step before.
    """

    name: str
    weight: np.ndarray
    delay: np.ndarray
    weight_rec: np.ndarray | None
    delay_rec: np.ndarray | None
    keep_u: np.ndarray
    keep_v: np.ndarray
    bias_u: np.ndarray
    bias_v: np.ndarray
    threshold: np.ndarray | None
    reset: str = "zero"
    late: bool = False

    @property
    def size(self) -> int:
        """Number of neurons."""
        return len(self.weight)


@dataclass(frozen=True)
class Rounding:
    """What quantising one layer did. Errors of weights and bias count in thresholds (of a readout: in the
    largest weight), decays in what is kept of a state in a step.

    Attributes:
        exact: nothing was rounded.
        unit: integers of one unit of the graph.
        exponents: of input and recurrent weights.
    """

    name: str
    exact: bool
    unit: float
    vth: int
    exponents: tuple[int, int]
    weight_error: float
    weight_error_rms: float
    bias_error: float
    decay_error: float
    threshold_error: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dict(vars(self))

    def __str__(self) -> str:
        if self.exact:
            return f"{self.name}: whole numbers already, nothing is rounded"
        return (
            f"{self.name}: vth {self.vth}, weight exponents {self.exponents[0]} and {self.exponents[1]}; "
            f"errors: weights {self.weight_error_rms:.2g} rms, {self.weight_error:.2g} at most, "
            f"bias {self.bias_error:.2g}, "
            f"threshold {self.threshold_error:.2g}, decays {self.decay_error:.2g}"
        )


def run(layers: list[FloatLayer], inputs: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Run a batch from rest in float64.

    Args:
        inputs: (batch, steps, channels).

    Returns:
        For every layer spikes, uint8, and membranes after the reset, both (batch, steps, neurons).
    """
    results = []
    x = inputs
    for layer in layers:
        spikes, voltage = _run(layer, x)
        results.append((spikes, voltage))
        x = spikes
    return results


def _by_delay(weight: np.ndarray, delay: np.ndarray, least: int) -> list[tuple[int, np.ndarray]]:
    return [
        (int(d) + least, np.where(delay == d, weight, 0).T)
        for d in np.unique(delay[weight != 0])
    ]  # fmt: skip


def _run(layer: FloatLayer, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    batch, steps, _ = inputs.shape
    drive = np.zeros((batch, steps, layer.size))
    for lag, matrix in _by_delay(layer.weight, layer.delay, 0):
        if lag < steps:
            drive[:, lag:] += inputs[:, : steps - lag].astype(np.float64) @ matrix
    loops = []
    if layer.weight_rec is not None and layer.delay_rec is not None:
        loops = _by_delay(layer.weight_rec, layer.delay_rec, 1)
    threshold = np.inf if layer.threshold is None else layer.threshold
    u = np.zeros((batch, layer.size))
    v = np.zeros((batch, layer.size))
    spikes = np.zeros((batch, steps, layer.size), np.uint8)
    voltage = np.zeros((batch, steps, layer.size))
    for t in range(steps):
        before = u
        u = layer.keep_u * u + drive[:, t] + layer.bias_u
        for lag, matrix in loops:
            if t >= lag:
                u = u + spikes[:, t - lag] @ matrix
        v = layer.keep_v * v + (before if layer.late else u) + layer.bias_v
        fired = v > threshold
        v = np.where(fired, v - threshold if layer.reset == "subtract" else 0, v)
        spikes[:, t], voltage[:, t] = fired, v
    return spikes, voltage


def fill(weight: np.ndarray, where: str) -> float:
    """The factor that makes the largest weights fill -256 to 254.

    Raises:
        InputError: all are 0, or one is not finite.
    """
    peak = max(float(weight.max()) / fx.WEIGHT_MAX, float(weight.min()) / fx.WEIGHT_MIN)
    if not np.isfinite(peak):
        raise InputError(where, f"are {weight.min()} to {weight.max()} thresholds", "scale them down")
    if peak <= 0:
        raise InputError(
            where, f"are {weight.min()} to {weight.max()}", "quantise numbers that are not all 0"
        )
    return 1 / peak


def words(weight: np.ndarray, exponent: int, bits: int = 8, delay: np.ndarray | int = 0) -> Synapse:
    """The nearest synapse: even words of ``bits`` bits that count ``2**exponent``.

    Raises:
        InputError: the exponent is beyond the chip's.
    """
    if exponent > fx.WEIGHT_EXP_MAX:
        raise InputError("weight_exp", f"{exponent} exceeds {fx.WEIGHT_EXP_MAX}", "use more bits a weight")
    half = 1 << (bits - 1)
    rounded = np.clip(np.rint(weight / (2 << exponent)), -half, half - 1)
    return Synapse(2 * rounded, np.asarray(delay), exponent)


def bias_word(wanted: np.ndarray, where: str) -> tuple[np.ndarray, int]:
    """Mantissa and least exponent of biases in units of the membrane.

    Raises:
        InputError: one is beyond the chip's.
    """
    for exponent in range(BIAS_EXP_MAX + 1):
        mantissa = np.rint(wanted / 2**exponent)
        if np.abs(mantissa).max() <= fx.BIAS_MANT_MAX:
            return mantissa, exponent
    raise InputError(
        f"{where}: bias", f"{np.abs(wanted).max():.0f} exceeds {fx.BIAS_MANT_MAX << BIAS_EXP_MAX}"
    )


def _is_whole(values: np.ndarray) -> bool:
    return bool(np.all(np.abs(values - np.rint(values)) <= _WHOLE * np.maximum(np.abs(values), 1)))


def _decay(keep: np.ndarray) -> np.ndarray:
    return np.rint(fx.DECAY_ONE * (1 - keep)).astype(int)


def _standing_bias(layer: FloatLayer) -> np.ndarray:
    """What ``bias_u`` adds to every current once it has risen, and ``bias_v``."""
    if np.any(layer.bias_u) and np.any(layer.keep_u >= 1):
        raise InputError(layer.name, "adds a bias to a current that forgets nothing, which grows for ever")
    return layer.bias_v + layer.bias_u / np.where(layer.keep_u < 1, 1 - layer.keep_u, 1)


def _delays(layer: FloatLayer) -> tuple[np.ndarray, np.ndarray | None]:
    """Delays with the step that a late membrane adds."""
    delays = [layer.delay, layer.delay_rec]
    if layer.late:
        delays = [None if d is None else d + 1 for d in delays]
    for delay in delays:
        if delay is not None and delay.size and (delay.min() < 0 or delay.max() > DELAY_LIMIT):
            raise InputError(layer.name, f"has delays of {delay.min()} to {delay.max()} steps")
    return delays[0], delays[1]  # type: ignore[return-value]


def quantise(
    layer: FloatLayer, hint: Mapping[str, Any] | None = None, max_exponent: int = fx.WEIGHT_EXP_MAX
) -> tuple[Dense, Rounding]:
    """The integers nearest to a layer.

    Whole numbers that fit the chip's words stay what they are. Else every neuron's weights count in its
    threshold; the largest recurrent weight (of a layer without: the largest weight) fills its word, and the
    exponents are the least that leave the threshold 512 integers. Decays are ``round(4096 (1 - keep))``.

    Args:
        hint: exponents and the like that this package wrote beside its own networks.
        max_exponent: 0 for a ``model.pt``, which has no exponents.

    Raises:
        InputError: weights that are all 0, or a layer that the chip's ranges can't hold.
    """
    same = _exact(layer, hint or {}, max_exponent)
    if same is not None:
        unit = 1.0
        made = same
    else:
        made, unit = _nearest(layer, max_exponent)
    return made, _rounding(layer, made, unit, same is not None)


def _exact(layer: FloatLayer, hint: Mapping[str, Any], max_exponent: int) -> Dense | None:
    threshold = layer.threshold
    bias = _standing_bias(layer) * (1 << fx.STATE_SHIFT)
    decays = [fx.DECAY_ONE * (1 - keep) for keep in (layer.keep_u, layer.keep_v)]
    if not all(np.all(np.abs(d - np.rint(d)) < 1e-3) for d in decays) or not _is_whole(bias):
        return None
    if threshold is not None and (
        np.ptp(threshold) > 0 or not _is_whole(threshold) or threshold[0] > 1 << 24
    ):
        return None
    if np.any(layer.bias_u * layer.keep_u):
        return None
    delays = _delays(layer)
    synapses: list[Synapse | None] = []
    for weight, delay, name in (
        (layer.weight, delays[0], "weight_exp"),
        (layer.weight_rec, delays[1], "weight_rec_exp"),
    ):
        if weight is None:
            synapses.append(None)
            continue
        exponent = _exponent(weight, hint.get(name), max_exponent)
        if exponent is None:
            return None
        synapses.append(Synapse(np.rint(weight / 2**exponent), delay, exponent))  # type: ignore[arg-type]
    mantissa, exponent = _bias_exact(np.rint(bias), hint.get("bias_exp"))
    if np.any(mantissa * 2**exponent != np.rint(bias)):
        return None
    vth = fx.VTH_MAX if threshold is None else int(np.rint(threshold[0]))
    if threshold is None and isinstance(hint.get("vth"), int) and hint["vth"] >= fx.VTH_MAX:
        vth = hint["vth"]
    own: dict[str, Any] = {
        k: hint[k] for k in ("membrane_bits", "full_scale_exp") if isinstance(hint.get(k), int)
    }
    own |= {k: hint[k] for k in ("v_init", "u_init") if k in hint}
    neuron = Neuron(
        vth=vth,
        du=_decay(layer.keep_u),
        dv=_decay(layer.keep_v),
        bias=mantissa if np.any(mantissa) else np.zeros((), np.int16),
        bias_exp=exponent,
        reset=layer.reset,
        **own,
    )
    return Dense(synapses[0], neuron, synapses[1])  # type: ignore[arg-type]


def _exponent(weight: np.ndarray, wanted: Any, limit: int) -> int | None:
    """The least exponent, or the wanted one, whose words hold the weights without rounding."""
    candidates = [wanted] if isinstance(wanted, int) and -1 <= wanted <= limit and limit else []
    # Odd numbers last: halves of 8-bit words, which a model.pt has not.
    for exponent in (*candidates, *range(limit + 1), *([-1] if limit else [])):
        scaled = weight / 2**exponent
        low, high = fx.WEIGHT_MIN - 0.5, fx.WEIGHT_MAX + 0.5
        if _is_whole(scaled / 2) and scaled.min() >= low and scaled.max() <= high:
            return exponent
    return None


def _bias_exact(bias: np.ndarray, wanted: Any) -> tuple[np.ndarray, int]:
    order = [wanted] if isinstance(wanted, int) and 0 <= wanted <= BIAS_EXP_MAX else []
    for exponent in (*order, fx.BIAS_EXP, *range(BIAS_EXP_MAX + 1)):
        mantissa = bias / 2**exponent
        if _is_whole(mantissa) and np.abs(mantissa).max() <= fx.BIAS_MANT_MAX:
            return np.rint(mantissa), exponent
    return bias_word(bias, "layer")


def _nearest(layer: FloatLayer, max_exponent: int) -> tuple[Dense, float]:
    row = np.ones(layer.size) if layer.threshold is None else layer.threshold
    if not np.all(row > 0):
        raise InputError("v_threshold", "is 0, to which no weights can be scaled", "give it a value above 0")
    w_rec = layer.weight_rec
    with np.errstate(over="ignore"):  # refused by fill
        w_in = layer.weight / row[:, None]
        if w_rec is not None:
            w_rec = w_rec / row[:, None]
    if w_rec is not None and not np.any(w_rec):
        w_rec = None
    e_in = e_rec = 0
    if w_rec is None:
        scale = fill(w_in, f"{layer.name}: weights")
    else:
        scale = fill(w_rec, f"{layer.name}: recurrent weights")
        # Both matrices count in the same unit; the one with the smaller weights starts at exponent 0.
        if np.any(w_in):
            e_in = int(np.ceil(np.log2(scale / fill(w_in, f"{layer.name}: weights"))))
    goal = 0 if layer.threshold is None else FINE_THRESHOLD
    while min(e_in, e_rec) < 0 or scale * 2**e_rec < goal:
        e_in, e_rec = e_in + 1, e_rec + 1
    over = max(e_in, e_rec if w_rec is not None else 0) - max_exponent
    if over > 0:  # coarser: the smaller matrix keeps fewer of its bits
        e_in, e_rec = max(e_in - over, 0), max(e_rec - over, 0)
        scale = min(
            fill(w, layer.name) * 2**e / 2**e_rec
            for w, e in ((w_in, e_in), (w_rec, e_rec))
            if w is not None and np.any(w)
        )
    unit = scale * 2**e_rec
    if layer.threshold is not None:
        unit = min(unit, _COARSE_THRESHOLD)
    delays = _delays(layer)
    recurrent = None
    if layer.weight_rec is not None:
        w_rec = layer.weight_rec / row[:, None]
        recurrent = words(w_rec * unit, e_rec, delay=delays[1])  # type: ignore[arg-type]
    mantissa, exponent = bias_word(_standing_bias(layer) / row * unit * (1 << fx.STATE_SHIFT), layer.name)
    neuron = Neuron(
        vth=fx.VTH_MAX if layer.threshold is None else max(round(unit), 1),
        du=_decay(layer.keep_u),
        dv=_decay(layer.keep_v),
        bias=mantissa if np.any(mantissa) else np.zeros((), np.int16),
        bias_exp=exponent,
        reset=layer.reset,
    )
    return Dense(words(w_in * unit, e_in, delay=delays[0]), neuron, recurrent), unit


def _rounding(layer: FloatLayer, made: Dense, unit: float, exact: bool) -> Rounding:
    row = np.ones(layer.size) if layer.threshold is None or exact else layer.threshold
    wanted = [layer.weight / row[:, None] * unit]
    got = [made.synapse.weight.astype(float) * 2**made.synapse.weight_exp]
    if made.recurrent is not None and layer.weight_rec is not None:
        wanted.append(layer.weight_rec / row[:, None] * unit)
        got.append(made.recurrent.weight.astype(float) * 2**made.recurrent.weight_exp)
    off = np.concatenate([(a - b).ravel() for a, b in zip(wanted, got, strict=True)])
    largest = max(float(np.abs(w).max()) for w in wanted)
    per = (unit if not exact else float(row[0])) if layer.threshold is not None else largest
    if layer.threshold is not None and exact:
        per = float(layer.threshold[0])
    neuron = lif(made)
    bias = neuron.shifted_bias(layer.size) / (1 << fx.STATE_SHIFT)
    keep = [1 - d / fx.DECAY_ONE for d in (neuron.du, neuron.dv)]
    return Rounding(
        name=layer.name,
        exact=exact,
        unit=unit,
        vth=neuron.vth,
        exponents=(made.synapse.weight_exp, 0 if made.recurrent is None else made.recurrent.weight_exp),
        weight_error=float(np.abs(off).max() / per) if per else 0.0,
        weight_error_rms=float(np.sqrt(np.mean(off**2)) / per) if per else 0.0,
        bias_error=float(np.abs(_standing_bias(layer) / row * unit - bias).max() / per) if per else 0.0,
        decay_error=max(
            float(np.abs(k - f).max()) for k, f in zip(keep, (layer.keep_u, layer.keep_v), strict=True)
        ),
        threshold_error=0.0 if layer.threshold is None or exact else abs(neuron.vth / unit - 1),
    )
