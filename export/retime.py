"""Lags beyond the chip, made to fit: a coarser time step. Not exact; the report says what changes.

With steps of k times dt, k the smallest whole number at which every lag rounds to at most
``delay_max + 1`` steps:

- a lag of L steps becomes ``max(1, floor(L / k + 1/2))`` steps: up to k / 2 old steps off, and a lag
  below k / 2 grows to a whole new step;
- a decay keeps its time constant: ``4096 - d' = round(4096 ((4096 - d) / 4096)^k)``;
- a bias acts once instead of k times: it becomes ``b (1 + q + ... + q^(k - 1))`` with
  ``q = 1 - dv / 4096``, rounded to its mantissa, at a higher exponent where it must be;
- a current that lasts would act once instead of k times a new step: threshold and bias are divided by
  ``1 + p + ... + p^(k - 1)``, ``p = 1 - du / 4096``, instead of multiplying the weights (du = 4096: by 1);
- a window of the decision becomes that of the new steps which it touches;
- an initial membrane is divided alike, or stays the one that the bias of the first step takes to rest;
- weights and resets stay. A neuron fires at most once in k old steps, and what arrived in different old
  steps of one new step arrives together.

Inputs must come at the coarser step: :func:`rebin` and :class:`Rebinned` merge the spikes of a channel in
k steps into one, and count those that are lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from delaynet_lava import fixedpoint as fx
from delaynet_lava.errors import InputError
from delaynet_lava.network import Dense, Encoder, Network, Neuron, Synapse, lif, time_constant_ms
from delaynet_lava.neuron import BIAS_EXP_MAX

__all__ = ["LayerRetimed", "RetimeReport", "retime"]


@dataclass(frozen=True)
class LayerRetimed:
    """What changed in a layer.

    Attributes:
        layer: index.
        tau_v_ms, tau_v_new_ms, tau_u_ms, tau_u_new_ms: time constants of membrane and current before
            and after, ``-dt / ln(1 - d / 4096)``; 0 for no memory, None for no decay.
        lags: distinct lags of its synapses. lag_error_ms: largest change of one, either way.
        lags_changed: share of its synapses whose lag in ms is another.
        vth, vth_new: threshold mantissas. bias_error: largest rounding of a bias, over the threshold.
    """

    layer: int
    tau_v_ms: float | None
    tau_v_new_ms: float | None
    tau_u_ms: float | None
    tau_u_new_ms: float | None
    lags: int
    lag_error_ms: float
    lags_changed: float
    vth: int
    vth_new: int
    bias_error: float


@dataclass(frozen=True)
class RetimeReport:
    """What :func:`retime` did.

    Attributes:
        factor: k. dt_ms, dt_new_ms: the time step before and after.
        layers: one entry a layer; none where every delay was short enough.
    """

    delay_max: int
    factor: int
    dt_ms: float
    dt_new_ms: float
    layers: tuple[LayerRetimed, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        head = {k: v for k, v in vars(self).items() if k != "layers"}
        return {"kind": "retime", **head, "added_neurons": 0, "layers": [asdict(one) for one in self.layers]}

    def lines(self) -> Iterator[str]:
        """What a terminal shows."""
        if not self.layers:
            yield f"no delay exceeds {self.delay_max}, the time step stays {self.dt_ms:g} ms"
            return
        yield (
            f"time step {self.dt_ms:g} ms -> {self.dt_new_ms:g} ms ({self.factor} steps become one); this is "
            "not exact: check the accuracy, or retrain. Inputs must be binned alike; spikes of a channel or "
            "neuron within one step merge into one"
        )
        for one in self.layers:
            yield (
                f"layer {one.layer}: tau {_tau(one.tau_v_ms)} -> {_tau(one.tau_v_new_ms)} (current: "
                f"{_tau(one.tau_u_ms)} -> {_tau(one.tau_u_new_ms)}), {one.lags_changed:.1%} of the lags "
                f"change by up to {one.lag_error_ms:g} ms, vth {one.vth} -> {one.vth_new}, bias off by up to "
                f"{one.bias_error:.2%} of the threshold"
            )


def _tau(value: float | None) -> str:
    return "no decay" if value is None else f"{value:.4g} ms"


def _coarse(lag: np.ndarray, factor: int) -> np.ndarray:
    """int64, lags in new steps: to the nearest, halves up, at least 1."""
    return np.maximum(1, (2 * lag + factor) // (2 * factor))


def _lags(synapse: Synapse) -> np.ndarray:
    """int64, lag of every existing synapse."""
    return synapse.delay[synapse.weight != 0].astype(np.int64) + 1


def _gain(decay: int, factor: int) -> float:
    """``1 + q + ... + q^(k - 1)`` with ``q = 1 - decay / 4096``."""
    return float(sum((1 - decay / fx.DECAY_ONE) ** n for n in range(factor)))


def _decay(decay: int, factor: int) -> int:
    return fx.DECAY_ONE - round(fx.DECAY_ONE * (1 - decay / fx.DECAY_ONE) ** factor)


def _neuron(neuron: Neuron, factor: int, where: str) -> tuple[Neuron, float]:
    """The neuron at the coarser step, and the largest rounding of its bias at the membrane's scale."""
    if np.ndim(neuron.du) or np.ndim(neuron.dv):
        raise InputError(
            f"{where}: decays", "differ between its neurons, which a coarser step would scale apart",
            "train with shared_param=True, or export with --delay-overflow relay",
        )  # fmt: skip
    du, dv = int(neuron.du), int(neuron.dv)
    scale = 1 / _gain(du, factor)
    wanted = neuron.bias.astype(np.float64) * 2**neuron.bias_exp * _gain(dv, factor) * scale
    exponent = neuron.bias_exp
    while np.abs(np.rint(wanted / 2**exponent)).max() > fx.BIAS_MANT_MAX:
        exponent += 1
        if exponent > BIAS_EXP_MAX:
            raise InputError(
                f"{where}: bias",
                f"{float(np.abs(wanted).max()):.0f} at the coarser step exceeds the largest, "
                f"{fx.BIAS_MANT_MAX << BIAS_EXP_MAX}",
                "scale the layer down",
            )
    bias = np.rint(wanted / 2**exponent).astype(np.int32)
    if np.any(neuron.u_init):
        raise InputError(f"{where}: u_init", "is not 0, and acts for a whole step at least", "start at rest")
    start = np.clip(np.rint(neuron.v_init * scale), -fx.V_MAX, fx.V_MAX).astype(np.int32)
    retimed = replace(
        neuron,
        du=_decay(du, factor),
        dv=_decay(dv, factor),
        vth=neuron.vth if neuron.is_readout else round(neuron.vth * scale),
        bias=bias,
        bias_exp=exponent,
        v_init=start,
    )
    if neuron.starts_quiet:
        retimed = retimed.quietened()
    return retimed, float(np.abs(bias * 2.0**exponent - wanted).max())


def retime(network: Network, delay_max: int = fx.MAX_DELAY) -> tuple[Network, RetimeReport]:
    """The network at the least coarse time step that makes every delay at most ``delay_max``.

    Raises:
        InputError: ``delay_max`` below 0; an encoder or payloads, which can't be merged; a bias that
            no longer fits; currents that do not start at 0.
    """
    if delay_max < 0:
        raise InputError("delay_max", f"{delay_max} is below 0")
    synapses = [s for layer in network.layers for s in (layer.synapse, layer.recurrent) if s is not None]
    longest = np.array(max((s.max_delay for s in synapses), default=0) + 1)
    if longest <= delay_max + 1:
        return network, RetimeReport(delay_max, 1, network.dt_ms, network.dt_ms, ())
    # Rounding saves at most half a step: the first that fits is here or at most a few further.
    factor = max(1, int(2 * longest // (2 * delay_max + 3)))
    while _coarse(longest, factor) > delay_max + 1:
        factor += 1
    layers: list[Dense] = []
    changes = []
    for k, layer in enumerate(network.layers):
        if isinstance(layer, Encoder) or network.payload_into(k).bits:
            raise InputError(
                f"layer {k}",
                ("is an encoder" if isinstance(layer, Encoder) else f"takes {network.payload}")
                + ", and values of several steps don't merge into one as spikes do",
                "export with --delay-overflow relay, or train with shorter delays",
            )
        old = lif(layer, f"layer {k}", "whose step cannot be made coarser", "train with shorter delays")
        neuron, error = _neuron(old, factor, f"layer {k}")
        both = [layer.synapse] + ([] if layer.recurrent is None else [layer.recurrent])
        changed = [
            Synapse(s.weight, _coarse(s.delay.astype(np.int64) + 1, factor) - 1, s.weight_exp) for s in both
        ]
        layers.append(Dense(changed[0], neuron, changed[1] if len(changed) > 1 else None))
        lags = np.concatenate([_lags(s) for s in both])
        off = _coarse(lags, factor) * factor - lags
        dt = network.dt_ms
        changes.append(
            LayerRetimed(
                layer=k,
                tau_v_ms=time_constant_ms(old.dv, dt),
                tau_v_new_ms=time_constant_ms(neuron.dv, dt * factor),
                tau_u_ms=time_constant_ms(old.du, dt),
                tau_u_new_ms=time_constant_ms(neuron.du, dt * factor),
                lags=len(np.unique(lags)),
                lag_error_ms=float(np.abs(off).max(initial=0)) * dt,
                lags_changed=float(np.mean(off != 0)) if off.size else 0.0,
                vth=old.vth,
                vth_new=neuron.vth,
                bias_error=error / (max(neuron.vth, 1) << fx.STATE_SHIFT),
            )
        )
    dt_new = network.dt_ms * factor
    report = RetimeReport(delay_max, factor, network.dt_ms, dt_new, tuple(changes))
    decision = None if network.decision is None else network.decision.coarser(factor)
    return network.with_(layers=tuple(layers), dt_ms=dt_new, decision=decision), report
