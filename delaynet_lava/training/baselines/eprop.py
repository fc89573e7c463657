"""E-prop: gradients of a recurrent layer in one sweep forward, without going back through time.

Source: Bellec et al., "A solution to the learning dilemma for recurrent networks of spiking neurons"
(2020). A synapse's eligibility says how it moved its neuron's spikes, through that neuron's membrane
alone; a learning signal says what these spikes did to the loss. What a spike does through other neurons
is left out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from delaynet_lava.emulator import lay_out
from delaynet_lava.errors import InputError
from delaynet_lava.fixedpoint import DECAY_ONE, RESET_ZERO, STATE_SHIFT, WEIGHT_SCALE
from delaynet_lava.kernels import spikes
from delaynet_lava.kernels.eligibility import Traces, accumulate
from delaynet_lava.kernels.layer import NO_VALUES
from delaynet_lava.kernels.recurrence import GROUPS, SPAN
from delaynet_lava.kernels.tensors import numbers_of
from delaynet_lava.kernels.threads import spread
from delaynet_lava.kernels.vectors import BLOCK
from delaynet_lava.network import lif
from delaynet_lava.neuron import RESETS
from delaynet_lava.nn import DelayRecurrent, Dense, Readout

__all__ = ["FEEDBACKS", "Step", "eprop_step"]

FEEDBACKS = ("symmetric", "random")
_CHUNK = 4 * SPAN


class Step(NamedTuple):
    """What :func:`eprop_step` saw.

    Attributes:
        population: float32 (N, T), hidden neurons that fire in each step.
        out: float32 (N, classes), membranes of the readout after the last step.
    """

    population: torch.Tensor
    out: torch.Tensor


def _parts(net: torch.nn.Sequential) -> tuple[DelayRecurrent | Dense, Readout]:
    blocks = list(net)
    if len(blocks) != 2 or type(blocks[0]) not in (DelayRecurrent, Dense) or type(blocks[1]) is not Readout:
        names = " - ".join(type(block).__name__ for block in blocks)
        raise InputError("e-prop: network", f"is {names}, expected DelayRecurrent or Dense, then Readout")
    for k, block in enumerate(blocks):
        block.neuron.clamp()
        if int(block.neuron.cx_current_decay) != DECAY_ONE:
            raise InputError(
                f"e-prop: block {k}", "remembers its current; a synapse has a trace of the membrane only",
                "use current_decay=1",
            )  # fmt: skip
    return blocks[0], blocks[1]


def _bits(x: torch.Tensor, channels: int) -> np.ndarray:
    if x.device.type != "cpu":
        raise InputError("e-prop: input", f"is on {x.device}", "e-prop runs on the CPU")
    if x.ndim != 3 or x.shape[1] != channels:
        raise InputError("e-prop: input", f"has shape {tuple(x.shape)}, expected (N, {channels}, T)")
    bits = np.empty((x.shape[0], x.shape[2], spikes.words(channels)), np.uint64)
    if not spikes.pack_tensor(numbers_of(x.transpose(1, 2)), bits):
        raise InputError("e-prop: input", "holds more than spikes", "give 0 or 1")
    return bits


class _Sums(NamedTuple):
    """What a sweep leaves, see :func:`kernels.eligibility.accumulate`: ebar, sbar, the sum of e; and Step."""

    eligible: np.ndarray
    filtered: np.ndarray
    summed: np.ndarray
    step: Step


def _sweep(hidden: DelayRecurrent | Dense, readout: Readout, bits: np.ndarray, want_sum: bool) -> _Sums:
    layer, dynamics = hidden.layer(), hidden._dynamics()
    (batch, steps), (n, channels) = bits.shape[:2], layer.synapse.weight.shape
    out = readout.layer()
    first_run = lay_out(layer, batch, lead=0)
    second_run = lay_out(out, batch, int(hidden.delay_shift), spiking=False)
    fired, silent = first_run.room(steps), second_run.room(steps)
    membrane = np.empty((batch, min(_CHUNK, steps), first_run.lanes), np.int32)
    neuron = lif(layer)
    threshold, reset = neuron.threshold, RESETS[neuron.reset]
    # Spikes of later steps reach no membrane that the loss sees.
    seen = steps - int(readout.delay_shift)
    useful = seen - int(hidden.delay_shift)
    delay = dynamics.delay[: 0 if layer.recurrent is None else n]
    width = -(-(channels + len(delay)) // BLOCK) * BLOCK
    erased = n if reset == RESET_ZERO else 0
    traces = Traces(
        trace=np.zeros((batch, width), np.float32),
        latest=np.zeros((batch, erased, width), np.float32),
        faded=np.zeros((batch, erased), np.float32),
        eligible=np.zeros((batch, n, width), np.float32),
        filtered=np.zeros((batch, n), np.float32),
        summed=np.zeros((GROUPS, n if want_sum else 0, width), np.float32),
    )
    alpha, kappa = (1 - lif(part).dv / DECAY_ONE for part in (layer, out))
    population = np.empty((batch, steps), np.float32)
    for first in range(0, steps, _CHUNK):
        length = min(_CHUNK, steps - first)
        first_run.advance(bits, NO_VALUES, first, length, first, fired, membrane)
        read = max(0, min(length, seen - first))
        second_run.advance(fired, NO_VALUES, first, read, first, silent)
        spread(
            accumulate, GROUPS, first, max(0, min(length, useful - first)), bits, fired, channels, delay,
            membrane, threshold, reset, dynamics.surrogate, dynamics.width, dynamics.height, alpha, kappa,
            traces,
        )  # fmt: skip
        population[:, first : first + length] = spikes.unpack(fired[:, first : first + length], n).sum(axis=2)
    membranes = second_run.voltage.astype(np.float32) / float(WEIGHT_SCALE << STATE_SHIFT)
    step = Step(torch.from_numpy(population), torch.from_numpy(membranes))
    return _Sums(traces.eligible, traces.filtered, traces.summed.sum(axis=0), step)


def eprop_step(
    net: torch.nn.Sequential,
    x: torch.Tensor,
    labels: torch.Tensor,
    feedback: str = "symmetric",
    seed: int = 0,
    temperature: float = 1.0,
    rate_weight: float = 0.0,
) -> Step:
    """Add e-prop's gradient of the cross-entropy after the last step to ``.grad`` of all weights.

    .. math::
        \\frac{dL}{dW_{ji}} =
            \\sum_k B_{kj} \\frac{p_k - y_k}{N} \\sum_t \\kappa^{T - t} \\psi_j[t] \\epsilon_i[t]

    with p the softmax of the readout's last membranes, kappa what a step leaves of them, psi the
    surrogate derivative and epsilon the sender's spikes, filtered as the receiver's membrane filters
    them. That is the gradient of back-propagation through time with ``feedback_grad`` 0 and
    ``reset_grad`` 0; of the readout's weights it is the exact one. Threshold and decays get none: they
    stay as they are. Memory beside the spikes, a bit each, does not grow with the number of steps.

    Args:
        net: a :class:`DelayRecurrent` or :class:`Dense`, then a :class:`Readout`; no memory in currents.
        x: float (N, in, T), spikes.
        labels: int64 (N,).
        feedback: "symmetric": B is the readout's weight; "random": B is fixed, drawn from ``seed``.
        temperature: the membranes are divided by it before the softmax.
        rate_weight: weight of the spike rate (spikes a neuron and step) in the loss; its gradient is
            taken in the same way and added. Without it, rates grow: the rule does not see how neurons
            drive each other.

    Raises:
        InputError: another network, input that is not spikes, or another feedback.
    """
    if feedback not in FEEDBACKS:
        raise InputError("e-prop: feedback", f"is {feedback!r}, expected one of {list(FEEDBACKS)}")
    hidden, readout = _parts(net)
    w_in, w_out = hidden.input_matrix(), readout.input_matrix()
    (n, channels), classes = w_in.shape, w_out.shape[0]
    bits = _bits(x, channels)
    batch, steps = bits.shape[:2]
    sums = _sweep(hidden, readout, bits, rate_weight != 0)
    error = F.softmax(sums.step.out / temperature, 1) - F.one_hot(labels, classes)
    error = (error / (batch * temperature)).numpy()
    back = w_out.detach().numpy()
    if feedback == "random":
        back = np.random.default_rng(seed).standard_normal((classes, n)).astype(np.float32) / np.sqrt(n)
    # einsum adds in an order of its own, whatever the threads.
    gradient = np.einsum("bj,bji->ji", error @ back, sums.eligible)
    if rate_weight:
        gradient += np.float32(rate_weight / (batch * steps * n)) * sums.summed
    pairs = [(w_in, gradient[:, :channels]), (w_out, error.T @ sums.filtered)]
    if isinstance(hidden, DelayRecurrent):
        pairs.append((hidden.recurrent_matrix(), gradient[:, channels : channels + n]))
    for matrix, of_matrix in pairs:
        if matrix.requires_grad:
            matrix.backward(torch.from_numpy(np.ascontiguousarray(of_matrix, np.float32)))
    return sums.step
