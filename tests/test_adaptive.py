"""The LSNN layer against the same equations in plain torch, and against itself on other threads."""

from __future__ import annotations

import numba
import pytest
import torch

pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

from delaynet_lava.errors import InputError
from delaynet_lava.export import extract
from delaynet_lava.nn import AdaptiveRecurrent, Readout
from delaynet_lava.nn.model import describe

CHANNELS, NEURONS, STEPS = 12, 41, 130


class Spike(torch.autograd.Function):
    """Step with the triangular surrogate."""

    @staticmethod
    def forward(ctx, distance, threshold, dampening):
        ctx.save_for_backward(distance)
        ctx.numbers = threshold, dampening
        return (distance > 0).to(distance.dtype)

    @staticmethod
    def backward(ctx, grad):
        (distance,) = ctx.saved_tensors
        threshold, dampening = ctx.numbers
        return grad * dampening / threshold * (1 - distance.abs() / threshold).clamp(min=0), None, None


def plain(block, x, w_in, w_rec):
    """The equations step by step in float64; spikes (N, out, T) and the least distance to a threshold."""
    batch, _, steps = x.shape
    v = a = z = torch.zeros(batch, NEURONS, dtype=torch.float64)
    out, least = [], 1.0
    for t in range(steps):
        v = (
            block.alpha * v
            + x[:, :, t] @ w_in.T
            - block.threshold * (block.reset_grad * z + (1 - block.reset_grad) * z.detach())
        )
        if w_rec is not None:
            back = block.feedback_grad * z @ w_rec.T + (1 - block.feedback_grad) * z.detach() @ w_rec.T
            v = v + back
        a = block.rho * a + z
        distance = v - block.threshold - block.beta.double() * a
        least = min(least, float(distance.detach().abs().min()))
        z = Spike.apply(distance, block.threshold, block.dampening)
        out.append(z)
    return torch.stack(out, 2), least


def layer(seed=0, **options):
    torch.manual_seed(seed)
    block = AdaptiveRecurrent(CHANNELS, NEURONS, adaptation=0.1, adaptation_tau_ms=200, **options)
    with torch.no_grad():
        block.input_weight *= 1.5
    return block


def spikes(batch=5, steps=STEPS):
    return (torch.rand(batch, CHANNELS, steps, generator=torch.Generator().manual_seed(1)) < 0.15).float()


def gradients(block, x):
    block.zero_grad()
    x = x.clone().requires_grad_()
    y = block(x)
    (y * torch.sin(torch.arange(y.numel(), dtype=torch.float32)).reshape(y.shape)).sum().backward()
    return [y.detach(), x.grad, *(p.grad.clone() for p in block.parameters())]


def close(ours, theirs, tolerance=2e-5):
    return float((ours.double() - theirs).abs().max() / theirs.abs().max()) < tolerance


def as_double(values):
    return values.detach().double().requires_grad_()


CASES = [{}, {"recurrent": False}, {"adaptive": 0}, {"reset_grad": 0.0, "feedback_grad": 0.0}]


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("options", CASES, ids=str)
def test_spikes_and_gradients_are_those_of_the_equations(options, shift):
    block, x = layer(delay_shift=shift, **options), spikes()
    ours = gradients(block, x)
    w_in = as_double(block.input_weight)
    w_rec = None if block.recurrent_weight is None else as_double(block.recurrent_weight)
    x_plain = as_double(x)
    y, least = plain(block, x_plain, w_in, w_rec)
    if shift:
        y = torch.nn.functional.pad(y, (1, -1))
    # Closer than the rounding of float32, a spike could go either way.
    assert least > 1e-5
    assert 0.02 < y.mean() < 0.5
    assert torch.equal(ours[0].double(), y.detach())
    (y * torch.sin(torch.arange(y.numel(), dtype=torch.float32)).reshape(y.shape)).sum().backward()
    assert close(ours[1], x_plain.grad)
    assert close(ours[2], w_in.grad)
    if w_rec is not None:
        assert close(ours[3], w_rec.grad * (1 - torch.eye(NEURONS)))
        assert not ours[3].diagonal().any()


@pytest.mark.parametrize("name", ["alpha", "rho", "threshold", "dampening"])
def test_the_comparison_sees_every_constant(name):
    block, x = layer(), spikes()
    before = gradients(block, x)
    setattr(block, name, 0.98 * getattr(block, name))
    assert not close(gradients(block, x)[2], before[2].double())


def test_only_the_neurons_that_adapt_tire():
    x = torch.ones(1, CHANNELS, 400)
    block = layer(recurrent=False)
    with torch.no_grad():
        block.input_weight.fill_(0.05)
    y = block(x)[0].detach()
    early, late = y[:, :100].sum(dim=1), y[:, -100:].sum(dim=1)
    plain, adaptive = slice(0, 21), slice(21, None)
    assert (late[plain] >= early[plain] - 1).all()
    assert (late[adaptive] < 0.8 * early[adaptive]).all() and late[adaptive].min() > 0


def test_results_do_not_depend_on_the_number_of_threads():
    block, x = layer(), spikes(batch=19)
    threads = numba.get_num_threads()
    several = gradients(block, x)
    try:
        numba.set_num_threads(1)
        one = gradients(block, x)
    finally:
        numba.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(several, one, strict=True))


def test_a_readout_takes_the_spikes_as_bits_and_as_numbers_alike():
    block, readout = layer(count_log=True), Readout({"current_decay": 1.0, "voltage_decay": 0.1}, NEURONS, 2)
    y, rate = block(spikes())
    assert block.shape == y.shape[1:2] and float(rate) == pytest.approx(float(y.mean()))
    assert readout(y).abs().max() > 0
    assert torch.equal(readout(y), readout(y.detach().clone()))


def test_nothing_is_kept_for_a_backward_pass_that_does_not_come():
    block, x = layer(), spikes()
    with torch.no_grad():
        quiet = block(x)
    assert not quiet.requires_grad and torch.equal(quiet, block(x))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"adaptive": 42}, "adaptive: is 42, of 41 neurons"),
        ({"threshold": 0.0}, "threshold: is 0.0, expected a number above 0"),
        ({"tau_ms": float("nan")}, "tau_ms: is nan"),
    ],
)
def test_bad_options_are_refused(options, problem):
    with pytest.raises(InputError, match=problem):
        AdaptiveRecurrent(CHANNELS, NEURONS, **options)


def test_bad_input_and_an_export_are_refused():
    block = layer()
    with pytest.raises(InputError, match=r"shape \(1, 5, 9\), expected \(N, 12, T\)"):
        block(torch.zeros(1, 5, 9))
    with pytest.raises(InputError, match="holds more than spikes"):
        block(torch.full((1, CHANNELS, 9), 2.0))
    with pytest.raises(InputError, match=r"layer 0 \(AdaptiveRecurrent\): is not a layer type"):
        extract(describe(torch.nn.Sequential(block)))
