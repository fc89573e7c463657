"""Delays between layers: late spikes, the gradient of when they come, the integers of every execution."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from delaynet_lava.emulator import emulate
from delaynet_lava.errors import InputError
from delaynet_lava.export import extract
from delaynet_lava.formats.model_file import load_model as load_file
from delaynet_lava.kernels.delays import delay_gradient, early, late
from delaynet_lava.nn import Axon, DelayRecurrent, Dense, Readout
from delaynet_lava.nn.model import load_model, save_model
from delaynet_lava.training.optimisers import BETAS_OF_DELAYS

PARAMS = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.1}


def plain_gradient(sent, arriving, delay, window, most, lag):
    """The definition, spike by spike."""
    total = np.zeros(len(delay))
    for j, d in enumerate(delay):
        pairs = [(min(d + k, most), max(d - k, 0)) for k in range(1, window + 1)]
        for b, t in zip(*np.nonzero(sent[:, :, j]), strict=True):
            p = np.append(arriving[b, :, j], np.zeros(most + lag + 1))
            total[j] += sent[b, t, j] * sum(p[t + lag + after] - p[t + lag + ahead] for after, ahead in pairs)
        total[j] /= sum(after - ahead for after, ahead in pairs)
    return total


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=5), st.integers(1, 14), st.integers(12, 15),
    st.integers(0, 1), st.integers(1, 40), st.booleans(), st.integers(0, 1 << 16),
)  # fmt: skip
def test_the_gradient_is_that_of_the_definition(delay, window, most, lag, steps, payloads, seed):
    rng = np.random.default_rng(seed)
    sent = (rng.random((3, steps, len(delay))) < 0.3) * (rng.integers(1, 9, 1) if payloads else 1)
    p = rng.standard_normal(sent.shape).astype(np.float32)
    seen = delay_gradient(torch.from_numpy(sent), torch.from_numpy(p), torch.tensor(delay), window, most, lag)
    expected = plain_gradient(sent, p, delay, window, most, lag)
    assert np.allclose(seen.numpy(), expected, atol=1e-4)


def test_early_is_what_comes_back_through_late():
    rng = torch.Generator().manual_seed(1)
    x, g = (torch.rand(2, 30, 6, generator=rng) for _ in range(2))
    delay = torch.tensor([0, 1, 29, 30, 62, 7])
    y = late(x, delay)
    assert torch.equal(y[:, 7:, 5], x[:, :-7, 5]) and y[:, :7, 5].eq(0).all() and y[:, :, 3:5].eq(0).all()
    # Both are sums of one product over other indices.
    assert (y * g).sum() == pytest.approx(float((x * early(g, delay)).sum()), rel=1e-5)


def stack(rng, sizes, delays, learn=False):
    blocks = []
    for k, (before, after) in enumerate(pairwise(sizes)):
        axon = Axon(rng.integers(0, delays + 1, before), before, learn)
        if k == len(sizes) - 2:
            blocks.append(Readout(PARAMS, before, after, weight_scale=2, axon=axon))
        elif k % 2:
            blocks.append(Dense(PARAMS, before, after, weight_scale=2, axon=axon))
        else:
            loop = rng.integers(0, delays + 1, after)
            blocks.append(DelayRecurrent(PARAMS, before, after, loop, weight_scale=2, axon=axon))
    return torch.nn.Sequential(*blocks)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 16), st.integers(0, 62), st.integers(2, 4), st.booleans())
def test_training_and_emulator_are_the_same(tmp_path_factory, seed, delays, layers, learn):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    net = stack(rng, rng.integers(2, 9, layers + 1), delays, learn)
    if learn:
        with torch.no_grad():
            for name, value in net.named_parameters():
                if name.endswith("learned_delay"):
                    value.add_(torch.randn_like(value) * 20)
    inputs = (rng.random((3, 80, net[0].axon.delay.numel())) < 0.1).astype(np.uint8)
    x = torch.from_numpy(inputs.transpose(0, 2, 1)).float()
    spikes = [x]
    for block in net:
        spikes.append(block(spikes[-1]))
    path = tmp_path_factory.mktemp("axon") / "m.pt"
    save_model(net, path)
    network = extract(load_file(path))
    trace = emulate(network, inputs, record=("spikes", "voltage"))
    for k, out in enumerate(spikes[1:-1]):
        assert np.array_equal(trace.spikes[k], out.detach().numpy().transpose(0, 2, 1))
    answer = np.rint(spikes[-1].detach().numpy().transpose(0, 2, 1) * 4096).astype(int)
    assert np.array_equal(trace.voltage[layers - 1], answer)
    for block, layer in zip(net, network.layers, strict=True):
        assert np.array_equal(block.layer().synapse.delay, layer.synapse.delay)
    again = load_model(path)
    assert torch.equal(torch.nn.Sequential(*again)(x), spikes[-1])
    # Control: a delay more of one sender that spikes is another network.
    if inputs[:, :60, 0].any() and np.any(network.layers[0].synapse.weight[:, 0]):
        with torch.no_grad():
            net[0].axon.delay[0] = net[0].axon.delay[0] + 1
        if not learn:
            changed = emulate(extract_of(net), inputs, record=("voltage",))
            assert not np.array_equal(changed.voltage[0], trace.voltage[0])


def extract_of(net):
    from delaynet_lava.nn.model import describe

    return extract(describe(net))


def test_the_gradient_passes_an_axon_as_autograd_would_have_it():
    torch.manual_seed(3)
    axon = Axon([0, 3, 9], 3, learn_delays=True)
    axon.delay_window = 5
    x = (torch.rand(2, 40, 3) < 0.3).float().requires_grad_()
    g = torch.rand(2, 40, 3)
    (axon(x) * g).sum().backward()
    y = x.detach().clone().requires_grad_()
    each = [torch.nn.functional.pad(y[..., j], (d, 0))[:, :40] for j, d in enumerate((0, 3, 9))]
    shifted = torch.stack(each, 2)
    (shifted * g).sum().backward()
    assert torch.equal(x.grad, y.grad)
    expected = plain_gradient(x.detach().numpy(), g.numpy(), [0, 3, 9], 5, 62, 0)
    assert np.allclose(axon.learned_delay.grad.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("k", [1, 7, 31, 60])
def test_an_echo_is_learned_from_no_delay(k):
    rng = np.random.default_rng(k)
    axon = Axon(0, 1, learn_delays=True)
    optimiser = torch.optim.Adam(axon.parameters(), lr=1.5, betas=BETAS_OF_DELAYS)
    for n in range(300):
        axon.delay_window = max(1, round(62 * (1 - n / 240)))
        optimiser.param_groups[0]["lr"] = 1.5 * max(0.02, 1 - n / 300)
        x = torch.from_numpy((rng.random((8, 400, 1)) < 0.02).astype(np.float32))
        wanted = torch.nn.functional.pad(x, (0, 0, k, 0))[:, :400]
        optimiser.zero_grad()
        (axon(x) - wanted).square().sum().backward()
        optimiser.step()
    assert int(axon.delay[0]) == k


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="Dense: axon: has delays of 3 senders for 4 inputs"):
        Dense(PARAMS, 4, 2, axon=Axon(0, 3))
    with pytest.raises(InputError, match="is up to 63, max_delay is 62"):
        Axon(63, 3, learn_delays=True)
    with pytest.raises(InputError, match="-1 is negative"):
        Axon(-1, 3)
