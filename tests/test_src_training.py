"""The Spiking Recurrent Cell in training: its integers, its gradients, its file."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numba as nb
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from delaynet_lava.errors import InputError
from delaynet_lava.kernels import src_training
from delaynet_lava.kernels.row_sums import AT_ONCE, add_listed, add_weighed, add_words_listed
from delaynet_lava.kernels.src_inputs import TOGETHER, inputs_of
from delaynet_lava.kernels.threads import pieces_of, spread
from delaynet_lava.kernels.vectors import LANES
from delaynet_lava.nn import AdaptiveRecurrent, Axon, DelayRecurrent, Dense, Readout, SpikingRecurrentCell
from delaynet_lava.nn.cell import quantize
from delaynet_lava.nn.model import load_model, save_model


def cut(x: np.ndarray, keep: int) -> np.ndarray:
    """Decay towards zero, rounded towards zero."""
    return np.sign(x) * ((np.abs(x) * keep) >> 12)


def integers(block: SpikingRecurrentCell, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """The cell in plain int64, one step after the other: sent, p and i, each (N, T, out), unshifted."""
    w = np.rint(block.input_matrix().detach().numpy() * 64).astype(np.int64)
    w_rec = block.recurrent_matrix()
    back = None if w_rec is None else np.rint(w_rec.detach().numpy() * 64).astype(np.int64)
    bias = np.rint(block.bias.detach().numpy() * 4096).astype(np.int64)
    batch, _, steps = x.shape
    n, g = len(bias), block.output_bits
    assert g is not None
    delay = block.delay.numpy()
    i, h, slow = np.zeros((batch, n), np.int64), *np.full((2, batch, n), -4096, np.int64)
    sent, ps, currents = np.zeros((3, batch, steps, n), np.int64)
    for t in range(-1001, steps):
        a = np.zeros((batch, n), np.int64)
        for j in range(x.shape[1]):
            if t - delay[j] >= 0:
                a += x[:, j, t - delay[j]].astype(np.int64)[:, None] * w[:, j]
        if back is not None:
            for j in range(n):
                lag = t - 1 - int(block.recurrent_delay[j])
                if lag >= 0:
                    a += sent[:, lag, j][:, None] * back[:, j]
        shift = 6 - block.in_exp - block.weight_exp
        a = a << shift if shift >= 0 else a >> -shift
        i = np.clip(cut(i, 4096 - block.input_decay) + a, -(2**23) + 1, 2**23 - 1)
        m = np.minimum(np.abs(i), 24576)
        p = np.sign(i) * (m - ((((m >> 1) ** 2 >> 10) * 341) >> 12)) + 2 * h - 7 * slow + bias
        slow = np.where(h > 2048, h, h + cut(slow - h, 4096 - 410))
        m = np.minimum(np.abs(p), 8192)
        h = np.sign(p) * (m - (m**2 >> 14))
        if t >= 0:
            sent[:, t], ps[:, t], currents[:, t] = (np.maximum(h, 0) + 2 ** (11 - g)) >> (12 - g), p, i
    return sent, ps, currents


@st.composite
def cells(draw: Any) -> tuple[SpikingRecurrentCell, torch.Tensor]:
    """A layer, and spikes or payloads for it, at the rates that people have."""
    seed = draw(st.integers(0, 2**31 - 1))
    channels, n = draw(st.integers(1, 24)), draw(st.integers(1, 20))
    rng = np.random.default_rng(seed)
    recurrent = rng.integers(0, 20, n) if draw(st.booleans()) else None
    in_exp = draw(st.sampled_from([0, 0, 4, 8]))
    block = SpikingRecurrentCell(
        {"bias": draw(st.floats(-8, -5))},
        channels,
        n,
        delay=rng.integers(0, draw(st.sampled_from([1, 12])), channels),
        recurrent_delay=recurrent,
        weight_bits=draw(st.integers(2, 8)),
        weight_exp=draw(st.integers(0, 4)),
        in_exp=in_exp,
        output_bits=draw(st.sampled_from([0, 0, 1, 4, 8])) if recurrent is None else in_exp,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in (
            block.synapse.weight,
            *([] if recurrent is None else [block.recurrent_synapse.weight]),
        ):
            weight.copy_((torch.rand(weight.shape, generator=generator) * 2 - 1) * 4)
        block.bias.add_(torch.rand(n, generator=generator) - 0.5)
    fires = torch.rand(3, channels, 90, generator=generator) < draw(st.sampled_from([0.03, 0.1]))
    size = torch.rand(fires.shape, generator=generator) * 2**in_exp
    return block, torch.where(fires, size.ceil(), 0.0)


@settings(max_examples=30, deadline=None)
@given(cells())
def test_the_forward_pass_is_the_plain_integers(made: tuple[SpikingRecurrentCell, torch.Tensor]) -> None:
    block, x = made
    out = block(x).detach().numpy().transpose(0, 2, 1)
    sent, _, _ = integers(block, x.numpy())
    np.testing.assert_array_equal(out[:, 1:], sent[:, :-1])
    assert not out[:, 0].any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(0, 17), st.integers(1, 70), st.integers(1, 70), st.booleans())
def test_events_are_what_is_not_zero(seed: int, batch: int, steps: int, channels: int, turned: bool) -> None:
    rng = np.random.default_rng(seed)
    kind = rng.choice([np.float32, np.float64])
    x = (rng.integers(1, rng.choice([2, 9]), (batch, steps, channels)) / rng.choice([1, 1, 2])).astype(kind)
    x[rng.random(x.shape) < rng.choice([0.5, 0.97])] = 0
    given_as = np.ascontiguousarray(x.transpose(0, 2, 1)).transpose(0, 2, 1) if turned else x
    asked, graded = bool(seed % 2), bool((x[x != 0] != 1).any())
    found = inputs_of(given_as, asked)
    by_channel = [x[first : first + TOGETHER].reshape(-1, channels).T for first in range(0, batch, TOGETHER)]
    for events, planes in ((found.by_step, x), (found.by_channel, by_channel)):
        for b, plane in enumerate(planes):
            rows, numbers = np.nonzero(plane)
            ends = np.searchsorted(rows, np.arange(len(plane) + 1))
            np.testing.assert_array_equal(events.end[b], ends)
            np.testing.assert_array_equal(events.number[b, : len(rows)], numbers)
            if graded or (asked and len(rows)):
                np.testing.assert_array_equal(events.value[b, : len(rows)], plane[rows, numbers])
            else:
                assert asked or events.value.shape == (len(planes), 0)
    assert found.fractions == np.count_nonzero(x % 1) and found.largest == max(x.max(initial=0), x.any())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(1, 40), st.integers(1, 70), st.integers(2, 8))
def test_words_are_those_of_quantize(seed: int, neurons: int, senders: int, bits: int) -> None:
    generator, step = torch.Generator().manual_seed(seed), 2.0 ** (3 - bits)
    weight = torch.randn(neurons, senders, generator=generator) * 3
    halves = torch.rand(weight.shape, generator=generator) < 0.3
    weight = torch.where(halves, torch.floor(weight / step) * step + step / 2, weight)
    rows = np.full((senders, 48), 99, np.int16)
    largest = np.empty(-(-senders // LANES), np.float32)
    spread(src_training.words_of, len(largest), weight.numpy(), bits, rows, largest)
    assert largest.max() == weight.abs().max()
    np.testing.assert_array_equal(rows[:, :neurons].T, 64 * quantize(weight, bits).numpy())
    assert not rows[:, neurons:].any()
    weight[neurons // 2, senders // 2] = torch.nan
    spread(src_training.words_of, len(largest), weight.numpy(), bits, rows, largest)
    assert np.isinf(largest.max())


@pytest.mark.parametrize("mode", ["integer", "float"])
def test_shadow_weights_stay_where_words_follow(mode: str) -> None:
    block = SpikingRecurrentCell({}, 2, 20, recurrent_delay=1, mode=mode)
    weights = block.synapse.weight, block.recurrent_synapse.weight
    with torch.no_grad():
        for weight in weights:
            weight[3:5, :2, 0, 0, 0] = torch.tensor([[9.0, -9.0], [3.5, -4.0]])
    block(torch.zeros(1, 2, 5))
    for weight in weights:
        assert weight.detach()[3:5, :2, 0, 0, 0].tolist() == [[4.0, -4.0], [3.5, -4.0]]
        with torch.no_grad():
            weight[7, 1] = torch.nan
        with pytest.raises(InputError, match="not all finite"):
            block(torch.zeros(1, 2, 5))
        with torch.no_grad():
            weight[7, 1] = 0


LEAK = {"current_decay": 0.4, "voltage_decay": 0.1, "requires_grad": True}
KINDS = {
    "DelayRecurrent": lambda: DelayRecurrent({"threshold": 2.0, **LEAK}, 5, 20, np.arange(20)),
    "Dense": lambda: Dense({"threshold": 2.0, **LEAK}, 5, 20),
    "with an axon": lambda: Dense({"threshold": 2.0, **LEAK}, 5, 20, axon=Axon(3, 5)),
    "Readout": lambda: Readout(LEAK, 5, 20),
    "AdaptiveRecurrent": lambda: AdaptiveRecurrent(5, 20, threshold=0.2),
    "SpikingRecurrentCell": lambda: SpikingRecurrentCell({"bias": -5.0}, 5, 20, weight_exp=-2),
}


@pytest.mark.parametrize(
    ("kind", "most"), [*((kind, 2) for kind in KINDS), *((kind, 9) for kind in KINDS if kind[0] != "A")]
)
def test_whole_numbers_of_any_type_are_the_same_input(kind: str, most: int) -> None:
    torch.manual_seed(1)
    block, x = KINDS[kind](), torch.randint(0, most, (3, 5, 60))
    x *= torch.rand(x.shape) < 0.3
    turned, found = x.byte().transpose(1, 2).contiguous().transpose(1, 2), []
    inputs = x.float(), x.double(), x, x.int(), x.byte(), turned, x.half(), x.bfloat16()
    for given_as in inputs:
        block.zero_grad()
        out = block(given_as)
        assert out.dtype == (given_as.dtype if given_as.is_floating_point() else torch.float32)
        (out.float() * torch.linspace(-1, 1, 60)).sum().backward()
        found.append(
            [out.detach().float(), *(p.grad.clone() for p in block.parameters() if p.grad is not None)]
        )
    assert found[0][0].any() and len(found[0]) > 1
    for given_as, others in zip(inputs, found, strict=True):
        if given_as.dtype in (torch.half, torch.bfloat16):  # membranes have more bits
            torch.testing.assert_close(others[0], found[0][0], rtol=0.01, atol=0.01)
        else:
            assert all(map(torch.equal, others, found[0]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_keeps_no_memory_after_its_backward_pass(kind: str) -> None:
    """However long its output is held; and where the graph is to be kept, it is."""
    torch.manual_seed(1)
    block, x = KINDS[kind](), (torch.rand(4, 5, 2000) < 0.3).float()
    states, gradients = 4 * 2000 * 32, []
    block(x).sum().backward()
    for keeps in (True, False):
        block.zero_grad()
        tracemalloc.start()
        out = block(x)
        loss = (out * torch.linspace(-1, 1, 2000)).sum()
        loss.backward(retain_graph=keeps)
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        if keeps:
            gradients = [p.grad.clone() for p in block.parameters() if p.grad is not None]
            loss.backward()
            assert all(
                torch.equal(2 * g, p.grad)
                for g, p in zip(gradients, (p for p in block.parameters() if p.grad is not None), strict=True)
            )
        # What comes out is 20 neurons' of 4 bytes, and their bits; what is kept are states of 32.
        assert (kept > (4 + 1) * states) == keeps, kept / states
        del out, loss


@nb.njit
def _listed(totals, position, rows, first_row, numbers, sample, first, last):
    add_listed(totals, position, rows, first_row, numbers, sample, first, last)


@nb.njit
def _words_listed(totals, position, rows, first_row, numbers, sample, first, last):
    add_words_listed(totals, position, rows, first_row, numbers, sample, first, last)


@nb.njit
def _weighed(totals, position, rows, first_row, numbers, factors, sample, first, last):
    add_weighed(totals, position, rows, first_row, numbers, factors, sample, first, last)


@pytest.mark.parametrize("vectors", [1, 2, 3, 4, 5, 6, 7, 8, 13, 15])
@pytest.mark.parametrize("kind", [np.int32, np.int64, np.float32])
def test_rows_that_a_list_names_are_summed(vectors: int, kind: type) -> None:
    rng, width = np.random.default_rng(vectors), 16 * vectors
    numbers = rng.integers(0, 9, (3, 12)).astype(np.int16)
    rows = rng.integers(-256, 256, (13, width)).astype(kind if kind is np.float32 else np.int16)
    totals = rng.integers(-99, 99, (4, width)).astype(kind)
    add = _listed if kind is np.float32 else _words_listed
    for first, last in ((0, 12), (3, 4), (5, 5)):
        expected = totals.copy()
        expected[2] += rows[4 + numbers[1, first:last]].sum(0, dtype=kind)
        add(totals, 2, rows, 4, numbers, 1, first, last)
        np.testing.assert_array_equal(totals, expected)
    factors = rng.integers(-4, 4, (3, 12)).astype(np.float32)
    met, sums = rng.integers(-9, 9, (20, width)).astype(np.float32), np.zeros((4, width), np.float32)
    for first, last in ((0, 12), (3, 4), (5, 5)):
        which = numbers[2, first:last], factors[2, first:last]
        expected = sums[3] + (met[7 + which[0]] * which[1][:, None]).sum(0)
        _weighed(sums, 3, met, 7, numbers, factors, 2, first, last)
        np.testing.assert_array_equal(sums[3], expected)
    assert not sums[:3].any()


@pytest.mark.parametrize("events", [AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE, 1000])
@pytest.mark.parametrize("word", [-256, 256])
def test_many_words_of_the_largest_kind_do_not_wrap(events: int, word: int) -> None:
    rows, totals = np.full((2, 112), word, np.int16), np.zeros((1, 112), np.int32)
    _words_listed(totals, 0, rows, 0, np.ones((1, events), np.int16), 0, 0, events)
    assert (totals == events * word).all()


@pytest.mark.parametrize("parts", [1, 2, 5])
@pytest.mark.parametrize("largest", [1, 2])
def test_weights_meet_what_their_events_met(largest: int, parts: int) -> None:
    rng = np.random.default_rng(2)
    x = rng.integers(0, largest + 1, (TOGETHER + 3, 20, 5)).astype(np.float32)
    grad_a, lag = rng.standard_normal((len(x), 20, 16), np.float32), np.array([0, 1, 7, 19, 25], np.int32)
    met = np.empty((16, 5), np.float32)
    src_training.weight_gradient(
        pieces_of(parts), inputs_of(x).by_channel, lag, grad_a, np.float32(0.5), parts, met
    )
    for j, later in enumerate(lag):
        seen = grad_a[:, later:].reshape(-1, 16), x[:, : max(0, 20 - later), j].reshape(-1, 1)
        np.testing.assert_allclose(met[:, j], 0.5 * (seen[0] * seen[1]).sum(0), rtol=1e-5, atol=1e-5)


def test_a_cell_speaks_when_it_is_driven_and_only_then() -> None:
    block = SpikingRecurrentCell({"bias": -5.0}, 1, 4, weight_exp=4)
    with torch.no_grad():
        block.synapse.weight.fill_(3.2)  # 0.2 a step: x comes to 1.6 and beyond
    assert not block(torch.zeros(1, 1, 3000)).any()
    spikes = block(torch.ones(1, 1, 500))
    assert 0.03 < float(spikes.detach().mean()) < 0.15


def reference(
    block: SpikingRecurrentCell, x: torch.Tensor, w: torch.Tensor, r: torch.Tensor | None, bias: torch.Tensor
) -> torch.Tensor:
    """The straight-through rule by plain autograd: values of the integers, slopes of the rule."""
    _, ps, currents = integers(block, x.detach().numpy().astype(np.int64))
    batch, _, steps = x.shape
    keep = 1 - block.input_decay / 4096
    grain = 2.0**block.output_bits
    i, sent = torch.zeros(batch, len(bias)), []
    values = torch.from_numpy(integers(block, x.detach().numpy().astype(np.int64))[0]).float()
    for t in range(steps):
        arriving = torch.stack(
            [x[:, j, t - int(d)] if t >= d else torch.zeros(batch) for j, d in enumerate(block.delay)], 1
        )
        i = keep * i + arriving @ w.T * 2.0 ** -(block.weight_exp + block.in_exp)
        if r is not None:
            lags = [t - 1 - int(d) for d in block.recurrent_delay]
            back = torch.stack(
                [sent[lag][:, j] if lag >= 0 else torch.zeros(batch) for j, lag in enumerate(lags)], 1
            )
            i = i + back @ r.T * 2.0**-block.weight_exp / grain
        slope_x = (1 - torch.from_numpy(currents[:, t]).abs() / 24576).clamp(min=0).float()
        slope_h = (1 - torch.from_numpy(ps[:, t]).abs() / 8192).clamp(min=0).float()
        h = (i * slope_x + bias) * slope_h * grain
        sent.append(h + (values[:, t] - h).detach())
    out = torch.stack(sent, 2)
    return torch.nn.functional.pad(out, (1, -1))


@settings(max_examples=20, deadline=None)
@given(cells())
def test_gradients_are_those_of_plain_autograd(made: tuple[SpikingRecurrentCell, torch.Tensor]) -> None:
    block, x = made
    x = x.requires_grad_()
    direction = torch.randn(block(x).shape, generator=torch.Generator().manual_seed(1))
    (block(x) * direction).sum().backward()
    w = block.input_matrix().detach().clone().requires_grad_()
    r, off = None, 1.0
    if block.recurrent_synapse is not None:
        r, off = block.recurrent_matrix().detach().clone().requires_grad_(), block.off_diagonal
    bias = block.bias.detach().clone().requires_grad_()
    other = x.detach().clone().requires_grad_()
    (reference(block, other, w, r, bias) * direction).sum().backward()
    pairs = [
        (block.synapse.weight.grad.flatten(1), w.grad),
        (block.bias.grad, bias.grad),
        (x.grad, other.grad),
    ]
    if r is not None:
        pairs.append((block.recurrent_synapse.weight.grad.flatten(1), r.grad * off))
    for mine, theirs in pairs:
        scale = float(theirs.abs().max()) + 1e-6
        torch.testing.assert_close(mine / scale, theirs / scale, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("gate", ["step", 20.0])
@pytest.mark.parametrize("bits", [None, 0])
def test_float_mode_is_a_torch_loop(gate: str | float, bits: int | None) -> None:
    torch.manual_seed(3)
    block = SpikingRecurrentCell({}, 12, 7, weight_exp=1, mode="float", gate=gate, output_bits=bits)
    with torch.no_grad():
        block.synapse.weight.uniform_(-2, 2)
    x = (torch.rand(2, 12, 60) < 0.1).float()
    out = block(x)
    direction = torch.randn(out.shape)
    (out * direction).sum().backward()
    w = block.synapse.weight.detach().flatten(1).double().requires_grad_()
    bias = block.bias.detach().double().requires_grad_()
    h = slow = torch.full((2, 7), -1.0, dtype=torch.float64)
    i, sent = torch.zeros_like(h), []
    keep = 1 - block.input_decay / 4096

    def cell(x_now: torch.Tensor, h: torch.Tensor, slow: torch.Tensor) -> tuple[torch.Tensor, ...]:
        p = x_now + 2 * h.detach() - 7 * slow.detach() + bias
        off = (h > 0.5).double() if gate == "step" else torch.sigmoid(float(gate) * (h - 0.5))
        share = 0.9 * (1 - off)
        return torch.tanh(p), (share * slow + (1 - share) * h).detach()

    for _ in range(1001):
        h, slow = cell(i, h, slow)
    for t in range(60):
        i = keep * i + x[:, :, t].double() @ w.T / 2
        h, slow = cell(3 * torch.tanh(i / 3), h, slow)
        value = h.clamp(min=0) if bits is None else (h >= 0.5).double()
        sent.append(h + (value - h).detach())
    plain = torch.nn.functional.pad(torch.stack(sent, 2), (1, -1))
    (plain * direction).sum().backward()
    assert float(plain.detach().amax()) > 0.5
    torch.testing.assert_close(out.double(), plain, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(block.synapse.weight.grad.flatten(1).double(), w.grad, rtol=2e-2, atol=1e-3)
    torch.testing.assert_close(block.bias.grad.double(), bias.grad, rtol=2e-2, atol=1e-3)


def test_bias_and_shadow_weights_stay_in_range() -> None:
    block = SpikingRecurrentCell({}, 2, 2)
    with torch.no_grad():
        block.bias.copy_(torch.tensor([-3.0, -20.0]))
        block.synapse.weight.fill_(9.0)
    block(torch.zeros(1, 2, 3))
    assert block.bias.tolist() == [-5.0, -8.0] and float(block.synapse.weight.detach().max()) == 4.0


@pytest.mark.parametrize("mode", ["integer", "float"])
def test_a_stack_comes_back_from_its_file(tmp_path: Path, mode: str) -> None:
    torch.manual_seed(5)
    lif = {"threshold": 2.0, "current_decay": 1.0, "voltage_decay": 0.1}
    net = torch.nn.Sequential(
        DelayRecurrent(lif, 6, 9, delay=3),
        SpikingRecurrentCell(
            {"bias": -5.5},
            9,
            8,
            delay=[0, 1, 2] * 3,
            recurrent_delay=4,
            weight_bits=4,
            weight_exp=1,
            mode=mode,
        ),
        Dense(lif, 8, 5),
        Readout({"current_decay": 1.0, "voltage_decay": 0.03}, 5, 3),
    )
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if name.endswith("synapse.weight"):
                weight.mul_(12)
    x = (torch.rand(2, 6, 120) < 0.2).float()
    save_model(net, tmp_path / "m.pt")
    again = load_model(tmp_path / "m.pt")
    assert bool(net[1](net[0](x)).any())
    torch.testing.assert_close(again(x), net(x), rtol=0, atol=0)
    assert again[1].options() == net[1].options()


@pytest.mark.parametrize(
    "options, word",
    [
        ({"weight_bits": 9}, "weight_bits"),
        ({"output_bits": None}, "floats"),
        ({"neuron_params": {"bias": -4.0}}, "fires without input"),
        ({"neuron_params": {"threshold": 1.0}}, "threshold"),
        ({"delay": -1}, "negative"),
        ({"mode": "double"}, "mode"),
        ({"recurrent_delay": 3, "output_bits": 4}, "both sums of a recurrent layer have one scale"),
    ],
)
def test_what_a_cell_cannot_be(options: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        SpikingRecurrentCell(**({"neuron_params": {}, "in_neurons": 2, "out_neurons": 2} | options))


@pytest.mark.parametrize(
    "value, word",
    [(0.5, "fractions"), (float("nan"), "fractions"), (float("inf"), "inf"), (2.0**24, "1.67.*e.07")],
)
def test_what_is_no_input_of_integers(value: float, word: str) -> None:
    with pytest.raises(InputError, match=word):
        SpikingRecurrentCell({}, 2, 2)(torch.full((1, 2, 3), value))
