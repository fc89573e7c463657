"""Gradients of the fused block against a slow autograd version written here, and against SLAYER's."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import torch

slayer = pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

from delaynet_lava.errors import InputError  # noqa: E402
from delaynet_lava.fixedpoint import membrane_grid  # noqa: E402
from delaynet_lava.kernels import recurrence  # noqa: E402
from delaynet_lava.kernels.tensors import NOTHING  # noqa: E402
from delaynet_lava.kernels.vectors import in_blocks  # noqa: E402
from delaynet_lava.nn import DelayRecurrent, Readout  # noqa: E402
from delaynet_lava.nn.model import describe  # noqa: E402


class PaperSpike(torch.autograd.Function):
    """Step with the surrogates that are linear below threshold, in float64."""

    @staticmethod
    def forward(ctx, v, threshold, width, height, falls):
        ctx.save_for_backward(v, threshold)
        ctx.scales = width, height, falls
        return (v > threshold).double()

    @staticmethod
    def backward(ctx, grad):
        v, threshold = ctx.saved_tensors
        width, height, falls = ctx.scales
        distance = -(v - threshold).abs() if falls else v - threshold
        slope = height * (1 + distance / width).clamp(0, 1)
        return grad * slope, -(grad * slope).sum().reshape(1), None, None, None


def truncate(x, unit=1 / 4096):
    """Round towards zero to a multiple of a unit; the gradient passes."""
    return x + (torch.trunc(x / unit) * unit - x).detach()


def fitted(x, unit, limit):
    """Round to the nearest multiple of a unit, a half upwards, and clip; the gradient passes."""
    return x + (torch.floor(x / unit + 0.5).mul(unit).clamp(-limit, limit) - x).detach()


class Plain(torch.nn.Module):
    """The recurrence as a loop over steps, one lag at a time, everything differentiated by autograd."""

    def __init__(self, block, width, height):
        super().__init__()
        as_double = lambda t: t.detach().double().requires_grad_()  # noqa: E731
        self.w_in, self.w_rec = as_double(block.input_matrix()), as_double(block.recurrent_matrix())
        self.du = as_double(torch.round(block.neuron.current_decay))
        self.dv = as_double(torch.round(block.neuron.voltage_decay))
        unit_exp, limit = membrane_grid(block.neuron.membrane_bits, block.neuron.full_scale_exp)
        self.unit, self.limit = 2**unit_exp / 4096, limit / 4096
        threshold = np.floor(block.neuron.threshold / self.unit) * self.unit
        self.threshold = as_double(torch.tensor([threshold]))
        self.lag = block.delay.numpy() + 1
        self.reset, self.scales = block.reset, (width, height, block.surrogate == "triangle")

    def forward(self, x, feedback=1.0):
        batch, _, steps = x.shape
        u = v = torch.zeros(batch, len(self.lag), dtype=torch.float64)
        spikes, membranes = [], []
        for t in range(steps):
            a = x[:, :, t] @ self.w_in.T
            for j, lag in enumerate(self.lag):
                if t >= lag:
                    sent = spikes[t - lag][:, j : j + 1]
                    # The value is whole, the gradient towards the sender is damped.
                    damped = sent.detach() + feedback * (sent - sent.detach())
                    a = a + damped * self.w_rec[:, j]
            u = truncate(u * (1 - self.du / 4096)) + a
            # The decayed membrane is whole in its unit, so rounding the sum rounds what comes in.
            v = fitted(truncate(v * (1 - self.dv / 4096), self.unit) + u, self.unit, self.limit)
            s = PaperSpike.apply(v, self.threshold, *self.scales)
            spikes.append(s)
            membranes.append(v)
            if self.reset == "zero":
                # Value v (1 - s); its derivative with respect to s is -min(v, threshold).
                bound = torch.minimum(v, self.threshold).detach()
                v = v * (1 - s.detach()) - bound * (s - s.detach())
            else:
                v = v - self.threshold * s
        return torch.stack(spikes, 2), torch.stack(membranes, 2)


def close(ours, plain, tolerance=5e-6):
    return float((ours.double() - plain).abs().max() / plain.abs().max()) < tolerance


DELAYS = {
    "mixed": [0, 1, 3, 9, 12, 9, 0],
    "all long": [9, 8, 12, 9, 20, 30, 15],
    "longer than the sample": [70, 0, 59, 58, 61, 7, 8],
    "zero": [0] * 7,
}


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("delays", DELAYS.values(), ids=DELAYS.keys())
@pytest.mark.parametrize(
    ("feedback", "bits", "surrogate"),
    [(1.0, 24, "paper"), (0.3, 24, "paper"), (1.0, 7, "paper"), (1.0, 24, "triangle")],
)
def test_gradients_match_plain_autograd(reset, delays, feedback, bits, surrogate):
    torch.manual_seed(len(delays) + sum(delays) + 24 - bits)
    params = dict(threshold=1.5, current_decay=0.3, voltage_decay=0.1, tau_grad=1.2, scale_grad=0.9)
    if bits < 24:
        params |= dict(membrane_bits=bits, full_scale_exp=13)
    block = DelayRecurrent(
        params | {"requires_grad": True}, 5, 7, np.array(delays), weight_scale=2, reset=reset,
        feedback_grad=feedback, surrogate=surrogate, delay_shift=False,
    )  # fmt: skip
    x = (torch.rand(3, 5, 60) < 0.3).float()
    require_plain_gradients(block, Plain(block, width=1.2 * 1.5, height=0.9 / (1.2 * 1.5)), x, feedback)


GROUPS = [0] * 9 + [15] * 26 + [31] * 20 + [62] * 17


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("lowest", [0, 14])
def test_gradients_where_some_delays_tie_steps_and_others_do_not(shuffled, lowest):
    torch.manual_seed(lowest)
    delays = np.maximum(GROUPS, lowest)
    if shuffled:
        np.random.default_rng(0).shuffle(delays)
    params = dict(threshold=1.5, current_decay=0.6, voltage_decay=0.1, tau_grad=1.2, requires_grad=True)
    block = DelayRecurrent(params, 11, len(delays), delays, delay_shift=False)
    x = (torch.rand(5, 11, 83) < 0.4).float()
    require_plain_gradients(block, Plain(block, width=1.2 * 1.5, height=1 / (1.2 * 1.5)), x)


def require_plain_gradients(block, plain, x, feedback=1.0):
    """Spikes and membranes are those of the plain loop, gradients too up to rounding."""
    block.want_voltage = True
    x = x.requires_grad_()
    x_plain = x.detach().double().requires_grad_()

    spikes = block(x)
    expected, membrane = plain(x_plain, feedback)
    assert torch.equal(spikes.double(), expected)
    assert torch.equal(block.voltage.double(), membrane)
    assert 0.05 < float(spikes.mean()) < 0.6

    incoming = torch.randn(spikes.shape)
    spikes.backward(incoming)
    expected.backward(incoming.double())
    pairs = {
        "input weights": (block.input_synapse.weight.grad.flatten(1), plain.w_in.grad),
        "recurrent weights": (block.recurrent_synapse.weight.grad.flatten(1), plain.w_rec.grad),
        "current decay": (block.neuron.current_decay.grad, plain.du.grad),
        "voltage decay": (block.neuron.voltage_decay.grad, plain.dv.grad),
        "threshold": (block.neuron.vth.grad, plain.threshold.grad),
        "input": (x.grad, x_plain.grad),
    }
    wrong = [name for name, (ours, theirs) in pairs.items() if not close(ours, theirs)]
    assert not wrong


def test_the_comparison_sees_a_delay_that_is_off_by_one():
    torch.manual_seed(3)
    params = dict(threshold=1.5, current_decay=0.3, voltage_decay=0.1, tau_grad=1.2, requires_grad=True)
    block = DelayRecurrent(params, 5, 7, np.array(DELAYS["mixed"]), weight_scale=2, delay_shift=False)
    x = (torch.rand(3, 5, 60) < 0.3).float()
    spikes = block(x).detach()
    busiest = int(spikes.sum(dim=(0, 2)).argmax())
    plain = Plain(block, 1.8, 1 / 1.8)
    assert torch.equal(spikes.double(), plain(x.double())[0])
    plain.lag = plain.lag + (np.arange(7) == busiest)
    assert not torch.equal(spikes.double(), plain(x.double())[0])


def slayer_pair(current_decay, voltage_decay, membrane_grad, neurons=9):
    params = dict(threshold=1.25, current_decay=current_decay, voltage_decay=voltage_decay)
    params |= dict(tau_grad=0.3, scale_grad=0.8)
    theirs = slayer.block.cuba.Recurrent(dict(params), 6, neurons, weight_scale=2)
    ours = DelayRecurrent(dict(params), 6, neurons, 0, surrogate="slayer", membrane_grad=membrane_grad)
    for name in ("input_synapse", "recurrent_synapse"):
        getattr(ours, name).weight.data.copy_(getattr(theirs, name).weight.data)
    return theirs, ours


@pytest.mark.parametrize(
    ("current_decay", "voltage_decay", "membrane_grad"),
    [(1.0, 1.0, True), (1.0, 0.05, False), (0.25, 0.1, False)],
    ids=["no memory", "membrane", "current and membrane"],
)
def test_without_delays_the_block_is_slayers_recurrent(current_decay, voltage_decay, membrane_grad):
    """Forward equal; gradients too, given SLAYER's surrogate. SLAYER cuts the gradient along u and v
    at every step, so where those have memory the block is asked to do the same."""
    torch.manual_seed(11)
    theirs, ours = slayer_pair(current_decay, voltage_decay, membrane_grad)
    x = (torch.rand(4, 6, 80) < 0.3).float()
    x_ours, x_theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y_ours, y_theirs = ours(x_ours), theirs(x_theirs)
    assert torch.equal(y_ours, y_theirs)
    assert 0.02 < float(y_ours.mean()) < 0.8
    incoming = torch.randn(y_ours.shape)
    y_ours.backward(incoming)
    y_theirs.backward(incoming)
    assert close(x_ours.grad, x_theirs.grad.double())
    for name in ("input_synapse", "recurrent_synapse"):
        assert close(getattr(ours, name).weight.grad, getattr(theirs, name).weight.grad.double()), name


def test_slayers_state_survives_a_call_and_ours_does_not():
    """SLAYER's Recurrent starts a second call from where the first ended; the block starts from rest."""
    torch.manual_seed(5)
    theirs, ours = slayer_pair(0.25, 0.05, True)
    x = (torch.rand(4, 6, 50) < 0.4).float()
    assert torch.equal(ours(x), ours(x))
    assert not torch.equal(theirs(x), theirs(x))


def test_readout_is_slayers_affine_one_step_later():
    torch.manual_seed(2)
    params = dict(threshold=1.0, current_decay=0.3, voltage_decay=0.04, requires_grad=True)
    theirs = slayer.block.cuba.Affine(dict(params), 6, 3, weight_scale=2)
    ours = Readout(dict(params), 6, 3)
    ours.synapse.weight.data.copy_(theirs.synapse.weight.data)
    x = (torch.rand(4, 6, 80) < 0.3).float()
    y_ours, y_theirs = ours(x), theirs(x)
    assert torch.equal(y_ours[..., 1:], y_theirs[..., :-1])
    assert not y_ours[..., 0].any()
    incoming = torch.randn(4, 3, 79)
    y_ours[..., 1:].backward(incoming)
    y_theirs[..., :-1].backward(incoming)
    assert close(ours.synapse.weight.grad, theirs.synapse.weight.grad.double())


def test_readout_decay_gradients_match_autograd():
    torch.manual_seed(4)
    ours = Readout(dict(current_decay=0.3, voltage_decay=0.04, requires_grad=True), 6, 3, delay_shift=False)
    x = (torch.rand(4, 6, 80) < 0.3).float()
    incoming = torch.randn(4, 3, 80)
    ours(x).backward(incoming)
    du = torch.round(ours.neuron.current_decay).detach().double().requires_grad_()
    dv = torch.round(ours.neuron.voltage_decay).detach().double().requires_grad_()
    drive = torch.einsum("oi,bit->bot", ours._matrix(ours.synapse).detach().double(), x.double())
    u = v = torch.zeros(4, 3, dtype=torch.float64)
    out = []
    for t in range(80):
        u = truncate(u * (1 - du / 4096)) + drive[..., t]
        v = truncate(v * (1 - dv / 4096)) + u
        out.append(v)
    torch.stack(out, 2).backward(incoming.double())
    assert close(ours.neuron.current_decay.grad, du.grad)
    assert close(ours.neuron.voltage_decay.grad, dv.grad)


def test_what_would_be_rounded_in_silence_is_refused():
    block = DelayRecurrent(dict(threshold=1.0, current_decay=1.0, voltage_decay=0.1), 4, 3)
    with pytest.raises(InputError, match="holds fractions"):
        block(torch.full((1, 4, 10), 0.5))
    with pytest.raises(InputError, match=r"shape \(1, 5, 10\), expected \(N, 4, T\)"):
        block(torch.zeros(1, 5, 10))
    loose = DelayRecurrent(
        dict(threshold=1.0, current_decay=1.0, voltage_decay=0.1), 4, 3, pre_hook_fx=lambda w: w
    )
    with pytest.raises(InputError, match="not multiples of 1/64"):
        loose(torch.ones(1, 4, 10))
    block.input_synapse.weight.data[0] = float("nan")
    with pytest.raises(InputError, match="not all finite"):
        block(torch.ones(1, 4, 10))
    with pytest.raises(InputError, match="not all finite"):
        describe(torch.nn.Sequential(block))
    loose.input_synapse.weight.data[0] = float("nan")
    with pytest.raises(InputError, match="not numbers"):
        loose(torch.ones(1, 4, 10))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"delay": -1}, "-1 is negative"),
        ({"delay": [0, 1]}, "one for each of the 3 neurons"),
        ({"delay": 1.5}, "type float64"),
        ({"delay": True}, "type bool"),
        ({"reset": "half"}, "'half'"),
        ({"surrogate": "exact"}, "'exact'"),
        ({"neuron_params": {"shared_param": False}}, "shared_param=True"),
        ({"neuron_params": {"dropout": torch.nn.Dropout()}}, "'dropout'"),
        ({"neuron_params": {"graded_spike": True}}, "'graded_spike'"),
        ({"neuron_params": {"scale": 32}}, "32, expected 64"),
    ],
)
def test_bad_options_of_the_block_are_refused(options, problem):
    params = dict(threshold=1.0, current_decay=1.0, voltage_decay=0.1) | options.pop("neuron_params", {})
    with pytest.raises(InputError, match=problem):
        DelayRecurrent(params, 4, 3, **options)


def test_outputs_are_counted_and_shifted_as_slayer_does():
    torch.manual_seed(0)
    params = dict(threshold=1.0, current_decay=1.0, voltage_decay=0.1)
    block = DelayRecurrent(params, 4, 3, weight_scale=4, count_log=True)
    x = (torch.rand(2, 4, 40) < 0.4).float()
    shifted, rate = block(x)
    block.delay_shift = False
    plain, _ = block(x)
    assert torch.equal(shifted[..., 1:], plain[..., :-1])
    assert not shifted[..., 0].any()
    assert float(rate) == pytest.approx(float(shifted.mean())) and rate > 0
    assert block.shape == torch.Size([3])
    assert block.overflows.tolist() == [0, 0]


def gradients(block, x):
    """Everything that a pass returns, for a loss that reaches every spike."""
    x = x.clone().requires_grad_()
    block.zero_grad()
    y = block(x)
    weight = torch.sin(torch.arange(y.numel(), dtype=torch.float32)).reshape(y.shape)
    (y * weight).sum().backward()
    return [y.detach(), x.grad, *(p.grad.clone() for p in block.parameters() if p.grad is not None)]


def engine_block(**options):
    torch.manual_seed(0)
    neuron = {"threshold": 1.0, "current_decay": 0.3, "voltage_decay": 0.1, "requires_grad": True}
    return DelayRecurrent(neuron, 20, 70, np.arange(70) % 63, weight_scale=2, feedback_grad=0.5, **options)


def engine_input(batch=6, steps=300):
    return (torch.rand(batch, 20, steps, generator=torch.Generator().manual_seed(1)) < 0.1).float()


def test_membranes_computed_again_give_the_same_gradients_bit_for_bit():
    kept = gradients(engine_block(recompute=False), engine_input())
    assert len(kept) == 7 and kept[0].mean() > 0.02
    again = gradients(engine_block(recompute=True), engine_input())
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))


def test_gradients_do_not_depend_on_the_number_of_threads():
    threads = numba.get_num_threads()
    several = gradients(engine_block(), engine_input())
    try:
        numba.set_num_threads(1)
        one = gradients(engine_block(), engine_input())
    finally:
        numba.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(several, one, strict=True))


def test_gradients_of_samples_do_not_depend_on_their_batch():
    x = engine_input()
    block = engine_block()
    weight = torch.linspace(-1, 1, 70)[None, :, None]

    def run(x):
        x = x.clone().requires_grad_()
        block.zero_grad()
        (block(x) * weight).sum().backward()
        return x.grad, block.recurrent_synapse.weight.grad.clone()

    whole, grad = run(x)
    parts = [run(x[a:b]) for a, b in ((0, 1), (1, 6))]
    assert torch.equal(whole, torch.cat([p[0] for p in parts]))
    assert close(parts[0][1] + parts[1][1], grad.double())
    assert not torch.equal(whole, run(x.flip(0))[0])


def test_the_bits_of_a_layer_are_not_used_once_its_spikes_were_changed():
    hidden, readout = engine_block(), Readout({"current_decay": 1.0, "voltage_decay": 0.1}, 70, 3)
    with torch.no_grad():
        y = hidden(engine_input())
        through = readout(y)
        assert torch.equal(readout(y.clone()), through)
        y[:, :, 100] = 1
        assert not torch.equal(readout(y), through)
        assert torch.equal(readout(y.clone()), readout(y))


def test_whole_numbers_train_like_spikes_given_in_turn():
    """Twice the value of a channel is two channels with the same weights."""
    block, double = engine_block(), engine_block()
    twice = torch.cat([double.input_synapse.weight.detach()] * 2, dim=1)
    pair = DelayRecurrent(
        {"threshold": 1.0, "current_decay": 0.3, "voltage_decay": 0.1, "requires_grad": True},
        40, 70, np.arange(70) % 63, feedback_grad=0.5,
    )  # fmt: skip
    pair.input_synapse.weight.data = twice
    pair.recurrent_synapse.weight.data = double.recurrent_synapse.weight.detach().clone()
    x = engine_input()
    ours, theirs = gradients(block, 2 * x), gradients(pair, torch.cat([x, x], dim=1))
    assert torch.equal(ours[0], theirs[0])
    assert close(ours[1], theirs[1][:, :20].double())


@pytest.mark.parametrize("shift", [True, False])
def test_a_loss_of_the_population_has_the_gradient_of_the_same_loss_of_the_spikes(shift):
    torch.manual_seed(3)
    x = (torch.rand(5, 20, 90) < 0.2).float()
    grads = []
    for through in ("population", "spikes"):
        torch.manual_seed(4)
        block = DelayRecurrent(
            {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.1, "requires_grad": True},
            20, 70, delay=3, weight_scale=2, delay_shift=shift,
        )  # fmt: skip
        spikes = block(x)
        population = spikes.population if through == "population" else spikes.sum(dim=1)
        assert torch.equal(spikes.population, spikes.sum(dim=1))
        assert population.sum() > 100
        (population.diff().square().mean() + 0.1 * spikes[:, :7].mean()).backward()
        grads.append([p.grad for p in block.parameters() if p.grad is not None])
    assert len(grads[0]) >= 4
    for ours, theirs in zip(*grads, strict=True):
        assert float(theirs.abs().max()) > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6 * float(theirs.abs().max()))


@pytest.mark.parametrize("wrong", ["", "spikes", "factors", "columns", "steps", "ring", "weights", "state"])
def test_arrays_of_another_layout_are_refused(wrong):
    batch, steps, n, lanes = 6, 5, 7, 16
    made = lambda *shape: np.zeros(shape, np.float32)  # noqa: E731
    layout = recurrence.columns_of(np.arange(n), lanes)
    spikes, through = made(batch, steps, 2 if wrong == "factors" else 3), in_blocks(made(3, n))
    if wrong in ("", "spikes", "columns"):
        spikes, through = made(batch, steps, n + (wrong == "spikes")), NOTHING
    arriving = recurrence.Arriving(spikes, through, made(0, 0), NOTHING, 1)
    v = np.zeros((batch, steps - (wrong == "steps"), lanes), np.int32)
    weights = in_blocks(made(n + (wrong == "weights"), n))
    synapses = recurrence.Synapses(NOTHING, weights, np.arange(n, dtype=np.int32))
    flight = recurrence.Flight(
        made(batch, lanes), made(batch - (wrong == "state"), lanes), made(8, 128, lanes),
        made(6 if wrong == "ring" else 8, 8, layout.width),
    )  # fmt: skip
    fired = np.zeros((batch, steps, 1), np.uint64)
    if wrong == "columns":
        layout = layout._replace(width=layout.width // 2)
    given = steps, arriving, v, fired, synapses, layout, flight
    if not wrong:
        recurrence.require_layout(*given)
        return
    with pytest.raises(ValueError, match="shapes of one layout"):
        recurrence.require_layout(*given)
