"""Neurons that do not spike as a differentiable operation: two decays behind one matrix.

Their membranes are a linear filter of what arrives, and so the way back needs nothing of the way there but
the spikes that came in, unless the decays are trained.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from delaynet_lava.fixedpoint import DECAY_ONE
from delaynet_lava.kernels.compiled import compiled, inner
from delaynet_lava.kernels.factored import Factored, pays
from delaynet_lava.kernels.layer import NO_RECORD
from delaynet_lava.kernels.neurons import SCALE, SMALLEST, ZERO
from delaynet_lava.kernels.recurrence import CHUNK, FAST, GROUPS, SPAN, Sent, add_senders, add_values
from delaynet_lava.kernels.steps import move
from delaynet_lava.kernels.tensors import (
    NOTHING,
    STATE_SCALE,
    add_start,
    by_products,
    float_type,
    forward_pass,
)
from delaynet_lava.kernels.threads import borrowed, each, in_threads, myself, shared, spread
from delaynet_lava.kernels.vectors import BLOCK, in_blocks, multiply_at

__all__ = ["Filter"]


class Wanted(NamedTuple):
    """What the backward pass is for; what is not wanted has a first axis of 0.

    Attributes:
        x: float32 (B, T, C), written: of the input, or of the synaptic sums where there is no ``w_in``.
        w_in: float32 (GROUPS, C, P), pre x post, added to.
        decays: float64 (GROUPS, 2), added to: of du and dv, as decays of 0 to 4096.
    """

    x: np.ndarray
    w_in: np.ndarray
    decays: np.ndarray


@inner()
def _normal(value):
    # What is no number is not smaller either: it goes on, and the training says so.
    return ZERO if abs(value) <= SMALLEST else value


@inner()
def _filter(b, at, steps, arriving, shift, v, u, kept, g_v, g_u, g):
    """Steps ``at[0]`` and on of sample b, of which v and u begin at ``at[1]``: g_a to ``g``, zeros behind.

    Neuron by neuron: loops over neurons become vectors, of which each takes a second to compile.

    Returns:
        Shares of the gradients of du and dv.
    """
    alpha_u, alpha_v = kept
    of_u, of_v = 0.0, 0.0
    for i in range(arriving.shape[2]):
        here_v, here_u = g_v[i], g_u[i]
        for k in range(g.shape[0] - 1, -1, -1):
            t = at[0] + k
            if k >= steps:
                g[k, i] = ZERO
                continue
            if v.shape[0] > 0:
                of_v -= np.float64(here_v) * v[b, t - at[1], i]
            if u.shape[0] > 0:
                of_u -= np.float64(here_u) * u[b, t - at[1], i]
            came = arriving[b, t + shift, i] if t + shift < arriving.shape[1] else ZERO
            here_v = _normal(came + alpha_v * here_v)
            here_u = _normal(here_v + alpha_u * here_u)
            g[k, i] = here_u
        g_v[i], g_u[i] = here_v, here_u
    return of_u, of_v


@inner()
def _into(b, begin, steps, g, w_in, tile, into):
    """Write the gradient of the input, or of the synaptic sums, in steps of sample b."""
    for k in range(0, steps, CHUNK):
        if w_in.shape[0] > 0:
            multiply_at(
                CHUNK, g.ctypes.data + 4 * g.shape[1] * k, g.shape[1], w_in.ctypes.data, w_in.shape[1], 0,
                w_in.shape[0], tile.ctypes.data, tile.shape[1],
            )  # fmt: skip
        for r in range(min(CHUNK, steps - k)):
            for i in range(into.shape[2]):
                into[b, begin + k + r, i] = tile[r, i] if w_in.shape[0] > 0 else g[k + r, i]


@compiled(fastmath=FAST)
def filter_back(pieces, first, steps, arriving, shift, v, u, sent, w_in, kept, after, wanted):
    """Back-propagate some steps of neurons that do not spike, the last first.

        g_v[t] = dL/dv[t] + alpha_v g_v[t+1]
        g_a[t] = g_u[t] = g_v[t] + alpha_u g_u[t+1]

    Plain version: ``Plain`` in tests/test_recurrent_gradients.py, a loop over steps and autograd.

    Args:
        pieces: :data:`kernels.recurrence.GROUPS` groups of samples, as :func:`kernels.threads.each` draws
            them.
        first, steps: the first step, a multiple of :data:`kernels.recurrence.SPAN`, and how many there are.
        arriving: float32 (B, T, N), dL/dv of step t at ``t + shift``.
        v, u: int32 (B, K, P), membrane and current of the steps; an axis of 0 leaves the gradient of the
            decay at zero.
        sent: a :class:`kernels.recurrence.Sent`, whose spikes of the layer itself are not read.
        w_in: float32, of :func:`kernels.vectors.in_blocks`, post x pre, in SLAYER's units; an axis of 0 where
            its product is not wanted.
        kept: float32, alpha_u and alpha_v, what a step leaves.
        after: float32 (B, P) each, g_v and g_u of the step after; left at those of the first step.
        wanted: :class:`Wanted`.
    """
    if shared(pieces):
        in_threads(pieces, myself())
        return
    arriving, v, u, sent, w_in, wanted = borrowed((arriving, v, u, sent, w_in, wanted))
    bits, late, values = sent.bits, sent.late, sent.values
    into, grad_w, decays = wanted.x, wanted.w_in, wanted.decays
    gv, gu = after
    batch, lanes = gv.shape
    for group in each(borrowed(pieces)):
        g, tile = np.zeros((SPAN, lanes), np.float32), np.zeros((CHUNK, w_in.shape[0] * BLOCK), np.float32)
        when, undelayed = np.zeros(64 * bits.shape[2], np.uint64), np.zeros(grad_w.shape[1], np.int32)
        for b in range(group * batch // GROUPS, (group + 1) * batch // GROUPS):
            for span in range((steps - 1) // SPAN, -1, -1):
                begin = first + span * SPAN
                length = min(SPAN, first + steps - begin)
                of_u, of_v = _filter(b, (begin, first), length, arriving, shift, v, u, kept, gv[b], gu[b], g)
                decays[group, 0] += of_u * (SCALE * SCALE)
                decays[group, 1] += of_v * (SCALE * SCALE)
                if into.shape[0] > 0:
                    _into(b, begin, length, g, w_in, tile, into)
                if grad_w.shape[0] > 0 and values.shape[0] > 0:
                    add_values(values, b, begin, g, grad_w[group])
                elif grad_w.shape[0] > 0:
                    add_senders(bits, b, begin - late, when, g, np.int64(0), undelayed, grad_w[group])


class Filter(torch.autograd.Function):
    """Membranes of a layer that does not spike; see :func:`kernels.autograd.delayed_recurrence`."""

    @staticmethod
    def forward(ctx: Any, x, seen, w_in, du, dv, bias, dyn):  # type: ignore[no-untyped-def, override]
        """(B, T, N) in SLAYER's units, late by ``dyn.shift``, and int64 (2,), overflows."""
        kept = any(ctx.needs_input_grad[3:5]), ctx.needs_input_grad[3]
        layer = forward_pass(x, seen, (w_in, None), (du, dv, None), bias, dyn, kept)
        voltage = np.empty(layer.voltage.shape, np.float32)
        move(layer.voltage, dyn.shift, np.float32(1 / STATE_SCALE), voltage)
        layer.voltage = NO_RECORD
        ctx.dyn, ctx.layer, ctx.dtype = dyn, layer, float_type(x)
        ctx.factored = seen is not None and seen.alone and pays(*w_in.shape)
        # As saved tensors they are gone after the backward pass, however long somebody holds the output.
        ctx.save_for_backward(w_in, *map(torch.from_numpy, layer.let_go()))
        totals = torch.from_numpy(layer.counts[:, :2].sum(axis=0))
        ctx.mark_non_differentiable(totals)
        return torch.from_numpy(voltage).to(ctx.dtype), totals

    @staticmethod
    def backward(ctx: Any, grad, _):  # type: ignore[no-untyped-def, override]
        """Of x, of w_in, and of both decays."""
        dyn, layer = ctx.dyn, ctx.layer
        w_in, *record = ctx.saved_tensors
        wants_x, _, wants_w, *wants_decays = ctx.needs_input_grad[:5]
        arriving = grad.to(torch.float32).contiguous().numpy()
        batch, steps, n = arriving.shape
        dense, factored = layer.is_dense(), ctx.factored
        of_sums = dense or factored
        weight = in_blocks(w_in.detach().numpy()) if wants_x and not of_sums else NOTHING
        shape = batch, steps, n if of_sums else w_in.shape[1]
        into = np.empty(shape, np.float32) if wants_x or dense else NOTHING
        in_loop = wants_w and not dense
        of_w = np.zeros((GROUPS, w_in.shape[1], layer.lanes), np.float32) if in_loop else NOTHING
        gv, gu = np.zeros((2, batch, layer.lanes), np.float32)
        wanted = Wanted(into, of_w, np.zeros((GROUPS, 2)))
        sent = Sent(layer.bits, layer.lead, layer.fired, layer.values)
        kept = tuple(
            np.float32((DECAY_ONE - decay) / DECAY_ONE * dyn.membrane_grad) for decay in (layer.du, layer.dv)
        )
        pieces = [(0, steps, NO_RECORD, NO_RECORD)]
        if any(wants_decays):
            pieces = layer.membranes(*(one.numpy() for one in record))
        for first, length, v, u in pieces:
            spread(
                filter_back, GROUPS, first, length, arriving, dyn.shift,
                v if wants_decays[1] else NO_RECORD, u, sent, weight, kept, (gv, gu), wanted,
            )  # fmt: skip
        grad_du = grad_dv = None
        if any(wants_decays):
            if dyn.initial is not None:
                add_start(wanted.decays, (gu, gv), dyn.initial)
            grad_du, grad_dv = torch.from_numpy(wanted.decays.sum(axis=0).astype(np.float32)).split(1)
        if dense:
            grad_x, grad_w = by_products(torch.from_numpy(into), layer.values, w_in, (wants_x, wants_w))
        else:
            grad_x = torch.from_numpy(into) if wants_x else None
            grad_w = torch.from_numpy(of_w.sum(axis=0)[:, :n].T) if wants_w else None
        grad_x = None if grad_x is None else grad_x.to(ctx.dtype)
        if factored and grad_x is not None:
            grad_x = Factored.of(grad_x, w_in.detach().to(ctx.dtype))
        return grad_x, None, grad_w, grad_du, grad_dv, None, None
