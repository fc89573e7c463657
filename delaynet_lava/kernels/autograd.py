"""The delayed recurrence as a differentiable torch operation, over the compiled loops.

:func:`delayed_recurrence` takes and returns torch tensors in SLAYER's units and knows nothing of
blocks; :mod:`delaynet_lava.nn` knows nothing of loops.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from delaynet_lava.errors import InputError
from delaynet_lava.fixedpoint import MEMBRANE_BITS, PAYLOAD_BITS_MAX, WEIGHT_SCALE
from delaynet_lava.kernels import recurrence, spikes
from delaynet_lava.kernels.dynamics import Dynamics
from delaynet_lava.kernels.events import ring_length
from delaynet_lava.kernels.factored import Factored
from delaynet_lava.kernels.readout import Filter
from delaynet_lava.kernels.steps import move
from delaynet_lava.kernels.tensors import (
    NO_NUMBERS,
    NOTHING,
    STATE_SCALE,
    SpikeBits,
    add_start,
    by_products,
    float_type,
    forward_pass,
    numbers_of,
)
from delaynet_lava.kernels.threads import spread
from delaynet_lava.kernels.vectors import ROWS, in_blocks

__all__ = ["Outcome", "delayed_recurrence"]


class Outcome(NamedTuple):
    """Result of :func:`delayed_recurrence`.

    Attributes:
        spikes: (B, T, N), late by ``dynamics.shift``; empty for a readout, nan where not wanted.
        voltage: (B, T, N), membrane before the reset in SLAYER's units, a readout's late by
            ``dynamics.shift``; empty where not wanted.
        population: float32 (B, T), the number of spikes of each step of ``spikes``. A loss of it costs a
            fraction of the same loss of the spikes. Empty for a readout.
        overflows: int64 (2,), how often u wrapped and v saturated.
        bits: the spikes again, for the next layer; None of a readout, and on a GPU.
    """

    spikes: torch.Tensor
    voltage: torch.Tensor
    population: torch.Tensor
    overflows: torch.Tensor
    bits: SpikeBits | None


class _DelayedRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, seen, w_in, w_rec, du, dv, threshold, bias, dyn, delay):  # type: ignore[override]
        kept = any(ctx.needs_input_grad), ctx.needs_input_grad[4]
        layer = forward_pass(x, seen, (w_in, w_rec), (du, dv, threshold), bias, dyn, kept)
        voltage, shape = x.new_empty(0), (*x.shape[:2], layer.n)
        if dyn.want_spikes:
            # NumPy's large arrays lie in huge pages, torch's do not: page faults cost as much again.
            floats = np.empty(shape, np.float32)
            spread(spikes.unpack_tensor, len(floats), layer.fired, dyn.shift, floats)
            out = torch.from_numpy(floats)
        else:
            out = NO_NUMBERS.expand(shape)
        counts = np.zeros(x.shape[:2], np.float32)
        spikes.count(layer.fired, dyn.shift, counts)
        population = torch.from_numpy(counts)
        if len(layer.voltage):
            floats = np.empty(layer.voltage.shape, np.float32)
            move(layer.voltage, 0, np.float32(1 / STATE_SCALE), floats)
            voltage = torch.from_numpy(floats)
            layer.voltage = NOTHING
        ctx.dyn, ctx.layer, ctx.dtype = dyn, layer, float_type(x)
        # As saved tensors they are gone after the backward pass, however long somebody holds the output.
        ctx.save_for_backward(w_in, w_rec, *map(torch.from_numpy, layer.let_go()))
        totals = torch.from_numpy(layer.counts[:, :2].sum(axis=0))
        fired = torch.from_numpy(layer.fired.view(np.int64))
        ctx.mark_non_differentiable(totals, fired)
        ctx.set_materialize_grads(False)
        return out.to(ctx.dtype), voltage.to(ctx.dtype), population, totals, fired

    @staticmethod
    def backward(ctx, grad_spikes, grad_voltage, grad_population, *_):  # type: ignore[override]
        dyn, layer = ctx.dyn, ctx.layer
        w_in, w_rec, *record = ctx.saved_tensors
        wants_x, wants_w_in, wants_w_rec = (ctx.needs_input_grad[k] for k in (0, 2, 3))
        batch, steps, _ = layer.fired.shape
        n, lanes, dense = layer.n, layer.lanes, layer.is_dense()
        channels = n if dense else w_in.shape[1]
        factors = grad_spikes.factors() if isinstance(grad_spikes, Factored) else None
        outer_s, through = factors or (grad_spikes, None)
        outer_s, outer_v = _array(outer_s), _array(grad_voltage)
        outer_p = np.zeros((0, 0), np.float32) if grad_population is None else _array(grad_population)
        gv, gu = np.zeros((batch, lanes), np.float32), np.zeros((batch, lanes), np.float32)
        longest = layer.ring - 2
        learns = w_rec is not None and ctx.needs_input_grad[9] and dyn.delay_window > 0
        into_x, feedback, delay = NOTHING, NOTHING, np.ascontiguousarray(dyn.delay, np.int32)
        layout = recurrence.columns_of(delay, lanes)
        if wants_x and not dense:
            into_x = in_blocks(w_in.detach().numpy())
        if w_rec is not None:
            feedback = in_blocks(w_rec.detach().numpy()[:, layout.order])
        rows = -(-batch // ROWS) * ROWS
        g_ring = np.zeros((rows, ring_length(longest + recurrence.SPAN), lanes), np.float32)
        ahead = ring_length(dyn.max_delay + recurrence.SPAN) if learns else layer.ring
        p_ring = np.zeros((rows, max(ahead, layer.ring), layout.width), np.float32)
        # Of dense payloads the loop gives the gradient of each synaptic sum, and two products the rest.
        grad_x = np.empty((batch, steps, channels), np.float32) if wants_x or dense else NOTHING
        in_loop = wants_w_in and not dense
        grad_in = np.zeros((recurrence.GROUPS, channels, lanes), np.float32) if in_loop else NOTHING
        grad_rec = np.zeros((recurrence.GROUPS, n, lanes), np.float32) if wants_w_rec else NOTHING
        scalars = np.zeros((recurrence.GROUPS, 3))
        grad_delay = np.zeros((recurrence.GROUPS if learns else 0, n))
        through = NOTHING if through is None else in_blocks(_array(through))
        arriving = recurrence.Arriving(outer_s, through, outer_p, outer_v, dyn.shift)
        sent = recurrence.Sent(layer.bits, layer.lead, layer.fired, layer.values)
        synapses = recurrence.Synapses(into_x, feedback, delay)
        rule = recurrence.Rule(
            layer.du, layer.dv, layer.threshold, layer.reset, dyn.surrogate, dyn.width, dyn.height,
            dyn.reset_grad, dyn.feedback_grad, dyn.membrane_grad, dyn.delay_window, dyn.max_delay,
        )  # fmt: skip
        flight = recurrence.Flight(gv, gu, g_ring, p_ring)
        gradients = recurrence.Gradients(grad_x, grad_in, grad_rec, scalars, grad_delay)
        for first, length, v, u in layer.membranes(*(one.numpy() for one in record)):
            recurrence.require_layout(length, arriving, v, layer.fired, synapses, layout, flight)
            spread(
                recurrence.backward_segment, recurrence.GROUPS, first, length, arriving, v, u, sent, synapses,
                layout, rule, flight, gradients,
            )  # fmt: skip
        if dyn.initial is not None:
            add_start(scalars, (gu, gv), dyn.initial)
        total = torch.from_numpy(scalars.sum(axis=0).astype(np.float32))
        if dense:
            into, grad_w = by_products(torch.from_numpy(grad_x), layer.values, w_in, (wants_x, wants_w_in))
        else:
            into = torch.from_numpy(grad_x) if wants_x else None
            grad_w = torch.from_numpy(grad_in.sum(axis=0)[:, :n].T) if wants_w_in else None
        return (
            None if into is None else into.to(ctx.dtype),
            None,
            grad_w,
            torch.from_numpy(grad_rec.sum(axis=0)[:, :n].T) if wants_w_rec else None,
            total[0:1], total[1:2], total[2:3], None, None,
            torch.from_numpy(grad_delay.sum(axis=0)).float() if ctx.needs_input_grad[9] else None,
        )  # fmt: skip


def _array(grad: torch.Tensor | None) -> np.ndarray:
    """A gradient for the loops; nothing where none comes in."""
    if grad is None or not grad.numel():
        return NOTHING
    grad = grad.plain() if isinstance(grad, Factored) else grad
    return grad.to(torch.float32).contiguous().numpy()


def _require_whole(x: torch.Tensor) -> int:
    """Largest magnitude of an input that holds whole numbers of payloads, and nothing else."""
    if x.is_floating_point() and not torch.equal(x, x.round()):
        raise InputError("input", "holds fractions", "give spikes or whole numbers")
    # The least whole number of a type has no magnitude in it.
    largest = max(int(x.detach().max()), -int(x.detach().min())) if x.numel() else 0
    if largest >= 1 << PAYLOAD_BITS_MAX:
        raise InputError(
            "input", f"holds {largest}, a payload has at most {PAYLOAD_BITS_MAX} bits", "scale it down"
        )
    return largest


def _on_gpu(x, w_in, w_rec, du, dv, threshold, dynamics, bias, delay):  # type: ignore[no-untyped-def]
    if dynamics.membrane_bits != MEMBRANE_BITS:
        raise InputError(
            f"layer on {x.device}", f"has membranes of {dynamics.membrane_bits} bits", "run it on the CPU"
        )
    from delaynet_lava.kernels.gpu import GpuRecurrence  # needs Triton

    if dynamics.initial is not None and any(np.any(state) for state in dynamics.initial):
        raise InputError(f"layer on {x.device}", "has an initial state", "run it on the CPU")
    largest = _require_whole(x)
    # Half precision holds the weights, not their sums; nor does single precision where torch may multiply
    # in TF32, whose factors have 11 bits.
    with torch.autocast(x.device.type, enabled=False):
        exact = torch.float32 if largest <= 1 else torch.float64
        if largest > 1 and largest * w_in.detach().double().abs().sum(dim=1).max() * WEIGHT_SCALE >= 1 << 24:
            raise InputError(
                f"layer on {x.device}",
                "has payloads and weights whose sums may pass 2**24",
                "run it on the CPU",
            )
        drive = F.linear(x.to(exact), w_in.to(exact))
        out, voltage, overflows = GpuRecurrence.apply(drive, w_rec, du, dv, threshold, bias, dynamics, delay)
    if dynamics.shift and dynamics.spiking:
        out = F.pad(out, (0, 0, 1, -1))
    elif dynamics.shift:
        voltage = F.pad(voltage, (0, 0, 1, -1))
    kind = float_type(x)
    return Outcome(out.to(kind), voltage.to(kind), out.sum(dim=2), overflows, None)


def delayed_recurrence(
    x: torch.Tensor,
    w_in: torch.Tensor,
    w_rec: torch.Tensor | None,
    du: torch.Tensor,
    dv: torch.Tensor,
    threshold: torch.Tensor,
    dynamics: Dynamics,
    bias: np.ndarray | None = None,
    bits: SpikeBits | None = None,
    delay: torch.Tensor | None = None,
) -> Outcome:
    """Run a layer with delayed recurrence; differentiable in the first six arguments and in the delay.

    The tensors' device decides where: on the CPU in the event-driven loops of this package, on a GPU in
    its Triton kernels, in the same integers.

    Args:
        x: (B, T, C), spikes or payloads (whole numbers of up to 24 bits) of any type, in any layout; those of
            step t act at step t. Of whole numbers of an integer type the results are float32.
        w_in: float (N, C), post x pre, quantised weights / 64.
        w_rec: float (N, N), post x pre, quantised recurrent weights / 64; None: no recurrence, as of all
            neurons that do not spike.
        du, dv: float (1,), decays 0 to 4096; rounded here, the gradient passes the rounding.
        threshold: float (1,); its mantissa is ``floor(64 * threshold)``.
        dynamics: everything else.
        bias: int64 (N,), already shifted to the state's scale.
        bits: ``x`` as the layer before returned it, where that is known.
        delay: float (N,), delays that are learned; those of ``dynamics``, which run, are these, rounded.

    Raises:
        InputError: ``x`` holds fractions or more than 24 bits, or the device can't run the layer. (A GPU
            sums payloads below 2**24 only and starts at rest.)
    """
    if x.device.type != "cpu":
        return _on_gpu(x, w_in, w_rec, du, dv, threshold, dynamics, bias, delay)
    if bits is None:
        bits = SpikeBits(torch.empty((*x.shape[:2], spikes.words(x.shape[2])), dtype=torch.int64), 0)
        packed = bits.bits.numpy().view(np.uint64)
        if not spikes.pack_tensor(numbers_of(x), packed):
            _require_whole(x)
            bits = None
    if not dynamics.spiking:
        voltage, overflows = Filter.apply(x, bits, w_in, du, dv, bias, dynamics)
        return Outcome(x.new_empty(0), voltage, torch.empty(0), overflows, None)
    out, voltage, population, overflows, fired = _DelayedRecurrence.apply(
        x, bits, w_in, w_rec, du, dv, threshold, bias, dynamics, delay
    )
    return Outcome(
        out, voltage, population, overflows, SpikeBits(fired, dynamics.shift, not dynamics.want_spikes)
    )
