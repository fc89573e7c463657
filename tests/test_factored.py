"""Gradients that go back as two factors: tensors like others, and the same numbers in the end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from delaynet_lava.kernels.factored import Factored
from delaynet_lava.nn import DelayRecurrent, Readout
from delaynet_lava.nn.blocks import leave_as_bits

NEURON = {"threshold": 1.5, "current_decay": 0.3, "voltage_decay": 0.1, "requires_grad": True}


def factored(turned=False):
    left, right = torch.randn(2, 7, 3), torch.randn(3, 11)
    ours, whole = Factored.of(left, right), left @ right
    return (ours.transpose(1, 2), whole.transpose(1, 2)) if turned else (ours, whole)


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_done_to_it_is_done_to_the_product(turned):
    one = torch.randn(factored(turned)[1].shape)
    for what in (
        lambda g: g + one, lambda g: one + g, lambda g: 2 * g, lambda g: g.sum(dim=1), lambda g: g[:, 1:3],
        lambda g: g.to(torch.float64), lambda g: g.clone(), lambda g: g.reshape(-1), lambda g: g @ one.mT,
        lambda g: torch.stack([g, one]), lambda g: one.clone().add_(g), lambda g: g.permute(2, 0, 1),
        lambda g: g.expand_as(one).norm(), lambda g: g.transpose(0, 2),
    ):  # fmt: skip
        ours, whole = factored(turned)
        assert ours.shape == whole.shape and ours.dtype == whole.dtype
        found = what(ours)
        assert type(found) is torch.Tensor and torch.equal(found, what(whole))


def test_a_transposition_leaves_the_factors():
    ours, whole = factored()
    there = ours.transpose(1, 2)
    assert type(there) is Factored and there.shape == (2, 11, 7) and there.factors() is None
    left, right = there.transpose(-1, -2).factors()
    assert left.shape == (2, 7, 3) and right.shape == (3, 11)
    assert torch.equal(there + 0, whole.transpose(1, 2))
    assert ours.factors() is None


@pytest.mark.parametrize("change", [lambda g: g.mul_(3), lambda g: g[:, 2].zero_(), lambda g: g.mT.sub_(1)])
def test_what_is_changed_in_place_is_changed(change):
    ours, whole = factored()
    change(ours)
    change(whole)
    assert ours.factors() is None and torch.equal(ours.plain(), whole)


def network(seed=3):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        DelayRecurrent(NEURON, 6, 23, np.arange(23), weight_scale=3),
        DelayRecurrent(NEURON, 23, 19, 40 - np.arange(19), weight_scale=3),
        Readout(NEURON, 19, 3, weight_scale=2),
    )


def gradients(net, loss, bits, watch=None):
    """Of the input and of all parameters, after one backward pass."""
    for block in net:
        if hasattr(block, "want_spikes"):
            block.want_spikes = True
    if bits:
        leave_as_bits(net)
    net.zero_grad()
    x = (torch.rand(6, 6, 150, generator=torch.Generator().manual_seed(1)) < 0.1).float().requires_grad_()
    first = net[0](x)
    hidden = net[1](first)
    if watch is not None:
        hidden.register_hook(watch)
    loss(net, hidden).backward()
    return [x.grad, *(p.grad.clone() for p in net.parameters() if p.grad is not None)]


def last(net, hidden):
    return net[2](hidden)[..., -1].square().sum()


def at_all_steps(net, hidden):
    return net[2](hidden).square().sum() + hidden.population.square().mean()


def of_two_readers(net, hidden):
    return sum((net[2](hidden) * k)[..., 20:].square().mean() for k in (1, 2))


@pytest.mark.parametrize("loss", [last, at_all_steps])
def test_gradients_are_those_of_the_product(loss):
    net = network()
    numbers, bits = (gradients(net, loss, left) for left in (False, True))
    assert len(numbers) == len(bits) > 8
    for plain, ours in zip(numbers, bits, strict=True):
        assert plain.any() and torch.equal(plain, ours)


def test_the_product_is_not_made_where_nobody_asks(monkeypatch):
    seen = []
    monkeypatch.setattr(Factored, "plain", lambda self: pytest.fail("it was made"))
    gradients(network(), last, True, watch=lambda g: seen.append(type(g)))
    assert seen == [Factored]


def test_what_a_hook_makes_of_it_goes_on():
    net = network()
    watches = None, lambda g: 2 * g, lambda g: g.mul_(2)
    once, twice, in_place = (gradients(net, last, True, watch=watch) for watch in watches)
    assert all(torch.equal(a, b) for a, b in zip(twice, in_place, strict=True))
    assert once[0].any()
    for a, b in zip(once[:-3], twice[:-3], strict=True):
        torch.testing.assert_close(2 * a, b)
    for a, b in zip(once[-3:], twice[-3:], strict=True):  # the readout's own
        assert torch.equal(a, b)


def test_two_readers_give_the_sum():
    net = network()
    numbers, bits = (gradients(net, of_two_readers, left) for left in (False, True))
    for plain, ours in zip(numbers, bits, strict=True):
        assert plain.any()
        torch.testing.assert_close(plain, ours, rtol=1e-4, atol=1e-5 * float(plain.abs().max()))
