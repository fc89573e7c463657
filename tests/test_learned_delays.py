"""Delays that are learned: their gradient against autograd and finite differences, an echo, files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_recurrent_gradients import Plain

pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl is not installed")

from delaynet_lava.errors import InputError
from delaynet_lava.nn import DelayRecurrent
from delaynet_lava.training.optimisers import BETAS_OF_DELAYS

PARAMS = dict(threshold=1.5, current_decay=1.0, voltage_decay=0.1, tau_grad=1.2, scale_grad=0.9)


def block_of(delays, channels=5, params=None, **options):
    torch.manual_seed(len(delays) + sum(delays))
    return DelayRecurrent(
        PARAMS | {"requires_grad": True} | (params or {}), channels, len(delays), np.array(delays),
        weight_scale=2, delay_shift=False, learn_delays=True, **options,
    )  # fmt: skip


class Spread(Plain):
    """The plain recurrence, with a factor of each lag of each sender: 1 at its own, 0 at all others.

    The derivative by such a factor is the loss's by a spike that arrives at that lag.
    """

    def __init__(self, block, most):
        super().__init__(block, width=1.2 * 1.5, height=0.9 / (1.2 * 1.5))
        self.share = torch.zeros(most + 1, len(self.lag), dtype=torch.float64)
        self.share[block.delay.long(), torch.arange(len(self.lag))] = 1
        self.share.requires_grad_()

    def forward(self, x, feedback=1.0):
        from test_recurrent_gradients import PaperSpike, fitted, truncate

        batch, _, steps = x.shape
        own = self.share.detach()
        u = v = torch.zeros(batch, len(self.lag), dtype=torch.float64)
        spikes, membranes = [], []
        for t in range(steps):
            a = x[:, :, t] @ self.w_in.T
            for d in range(min(t, len(own))):
                sent = spikes[t - 1 - d]
                # The share's gradient takes the spike as it is; the spike's own passes its own lag alone.
                a = a + (sent * own[d] + sent.detach() * (self.share[d] - own[d])) @ self.w_rec.T
            u = truncate(u * (1 - self.du / 4096)) + a
            v = fitted(truncate(v * (1 - self.dv / 4096), self.unit) + u, self.unit, self.limit)
            s = PaperSpike.apply(v, self.threshold, *self.scales)
            spikes.append(s)
            membranes.append(v)
            v = v * (1 - s.detach()) - torch.minimum(v, self.threshold).detach() * (s - s.detach())
        return torch.stack(spikes, 2), torch.stack(membranes, 2)


def slope(by_lag, delay, window, most):
    """Difference of what comes after and before, over the distance between them."""
    total = np.zeros(len(delay))
    for j, d in enumerate(delay):
        pairs = [(min(d + k, most), max(d - k, 0)) for k in range(1, window + 1)]
        total[j] = sum(by_lag[a, j] - by_lag[b, j] for a, b in pairs) / sum(a - b for a, b in pairs)
    return total


@pytest.mark.parametrize("window", [1, 4, 10])
@pytest.mark.parametrize("recompute", [False, True])
def test_gradient_is_that_of_autograd_by_the_share_of_each_lag(window, recompute) -> None:
    most, delays = 20, [0, 1, 3, 9, 19, 20, 7]
    block = block_of(delays, max_delay=most, reset="zero", recompute=recompute)
    block.delay_window = window
    x = (torch.rand(3, 5, 150) < 0.3).float()
    plain = Spread(block, most)
    spikes, _ = plain(x.double())
    ours = block(x)
    assert torch.equal(ours.double(), spikes) and spikes.sum() > 50
    weight = torch.rand(spikes.shape)
    (ours * weight).sum().backward()
    (spikes * weight).sum().backward()
    expected = slope(plain.share.grad.numpy(), delays, window, most)
    assert np.count_nonzero(expected) > 3
    seen = block.learned_delay.grad.numpy()
    assert np.abs(seen - expected).max() < 2e-5 * np.abs(expected).max()
    # Control: another window has another gradient.
    assert np.abs(seen - slope(plain.share.grad.numpy(), delays, window + 1, most)).max() > 1e-3


def test_gradient_is_the_slope_of_a_smooth_loss() -> None:
    """The membrane of a receiver that never spikes moves smoothly with the delay, and a loss with it."""
    most, at, steps = 40, 12, 200
    # What never spikes is never reset, which the surrogate does not know.
    block = block_of([at, 0], channels=1, max_delay=most, reset="zero", reset_grad=0.0)
    with torch.no_grad():
        block.input_synapse.weight.copy_(torch.tensor([[2.0], [0.0]])[:, :, None, None, None])
        block.recurrent_synapse.weight.zero_()
        block.recurrent_synapse.weight[1, 0] = 0.25
    block.want_voltage = True
    x = (torch.rand(4, 1, steps) < 0.05).float()
    wanted = torch.sin(torch.arange(steps) / 15.0)

    def loss(delay):
        with torch.no_grad():
            block.learned_delay[0] = delay
        block(x)
        return (block.voltage[:, 1] * wanted).sum()

    block.zero_grad()
    loss(at).backward()
    with torch.no_grad():
        difference = (float(loss(at + 1)) - float(loss(at - 1))) / 2
    assert abs(difference) > 1e-3
    assert float(block.learned_delay.grad[0]) == pytest.approx(difference, rel=0.02)


def echo(k: int, steps: int, rounds: int = 400) -> list[int]:
    """Delays at each step of learning to repeat the input after k steps, from 0; weights are fixed.

    The membranes forget at once, so that nothing but the delay bridges the time.
    """
    rng = np.random.default_rng(k)
    forgets = {"voltage_decay": 1.0, "tau_grad": 4.0}
    block = block_of([0, 0], channels=1, params=forgets, reset="zero", surrogate="triangle")
    with torch.no_grad():
        block.input_synapse.weight.copy_(torch.tensor([[2.0], [0.0]])[:, :, None, None, None])
        block.recurrent_synapse.weight.zero_()
        block.recurrent_synapse.weight[1, 0] = 1.9
    optimiser = torch.optim.Adam([block.learned_delay], lr=1.5, betas=BETAS_OF_DELAYS)
    seen = []
    for n in range(rounds):
        block.delay_window = max(1, round(62 * (1 - n / (0.8 * rounds))))
        optimiser.param_groups[0]["lr"] = 1.5 * max(0.02, 1 - n / rounds)
        x = torch.from_numpy((rng.random((16, 1, steps)) < 0.02).astype(np.float32))
        wanted = torch.nn.functional.pad(x[:, 0], (k + 1, 0))[:, :steps]
        out = block(x)[:, 1]
        optimiser.zero_grad()
        (out - wanted).square().sum().backward()
        optimiser.step()
        seen.append(int(block.delay[0]))
    return seen


@pytest.mark.parametrize("k", [1, 7, 31, 60])
def test_an_echo_is_learned_from_no_delay(k) -> None:
    seen = echo(k, 600)
    assert seen[0] == 0 and seen[-1] == k, seen


def test_what_is_learned_is_what_runs_and_what_files_hold(tmp_path) -> None:
    from delaynet_lava.nn.model import load_model, save_model

    block = block_of([0, 5, 62, 30])
    with torch.no_grad():
        block.input_synapse.weight.abs_()
        block.learned_delay.copy_(torch.tensor([-3.0, 7.6, 99.0, 30.4]))
    x = (torch.rand(2, 5, 100) < 0.3).float()
    out = block(x)
    assert block.delay.tolist() == [0, 8, 62, 30]
    assert block.layer().recurrent.delay[0].tolist() == [0, 8, 62, 30]
    with torch.no_grad():
        block.learned_delay[0] = 2.0
    save_model(block, tmp_path / "m.pt")
    again = load_model(tmp_path / "m.pt")[0]
    assert again.delay.tolist() == [2, 8, 62, 30] and not again.learn_delays
    fixed = block_of([0, 5, 62, 30])
    fixed.load_state_dict(again.state_dict())
    assert fixed.learned_delay.tolist() == [2.0, 8.0, 62.0, 30.0]
    assert torch.equal(fixed(x), block(x))
    assert torch.equal(again(x), block(x)) and not torch.equal(out, block(x))


def test_delays_beyond_the_largest_are_refused() -> None:
    with pytest.raises(InputError, match="max_delay is 62"):
        block_of([63, 0])


def test_without_a_window_delays_have_no_gradient() -> None:
    block = block_of([0, 5, 9])
    block.delay_window = 0
    block((torch.rand(2, 5, 100) < 0.3).float()).sum().backward()
    assert block.learned_delay.grad.abs().max() == 0 and block.input_synapse.weight.grad.abs().max() > 0


CHANGES = [
    "network.learn_delays=true", "network.learn_delays_in=true", "network.delays_in=0,4", "schedule.epochs=3",
    "schedule.frozen=0.4", "optimiser.lr_delays=200",
]  # fmt: skip
TASK = "cue:cues=1,wait_ms=150"


def test_a_training_moves_delays_then_freezes_them_and_goes_on_after_a_kill(tmp_path) -> None:
    from delaynet_lava.analysis.learning import draw_delays
    from delaynet_lava.emulator import emulate
    from delaynet_lava.export import extract
    from delaynet_lava.formats.model_file import ModelFile
    from delaynet_lava.tasks.registry import task as task_of
    from delaynet_lava.trace import decide
    from delaynet_lava.training.distributed import Group
    from delaynet_lava.training.recipe_file import changed, load_recipe
    from delaynet_lava.training.trainer import _Trainer, train

    class Stopped(Exception):
        pass

    def stop(epoch, _):
        if epoch.number == 2:
            raise Stopped

    recipe = changed(load_recipe("smoke"), [*CHANGES, "curriculum.walk=false", "averaging.decay=0"])
    model = train(recipe, TASK, tmp_path / "one.pt")
    with pytest.raises(Stopped):
        train(recipe, TASK, tmp_path / "two.pt", on_epoch=stop)
    there = _Trainer(recipe, task_of(TASK, 0), 0, Group())
    there.restore(tmp_path / "two.pt.checkpoint")
    learned = {"0.delay": there.net[0].learned_delay, "0.axon.delay": there.net[0].axon.learned_delay}
    frozen = {name: torch.round(value.detach()).tolist() for name, value in learned.items()}
    again = train(recipe, TASK, tmp_path / "two.pt")
    for name, tensor in model.state_dict.items():
        assert torch.equal(tensor, again.state_dict[name]), name
    last = {name: model.state_dict[name].tolist() for name in learned}
    assert last == frozen
    for name, first in model.provenance["first_delays"].items():
        assert first != last[name] and 0 <= min(last[name]) <= max(last[name]) <= 62

    # What was trained is what runs.
    network = extract(model)
    assert network.layers[0].recurrent.delay[0].tolist() == last["0.delay"]
    assert network.layers[0].synapse.delay[0].tolist() == last["0.axon.delay"]
    x, labels = task_of(TASK, 0).batch("validation", 0, 64)
    right = np.mean(decide(network, emulate(network, x)) == labels)
    assert right == model.provenance["metrics"]["validation_accuracy"]

    figure = draw_delays(model, "m.pt")
    assert [a.get_title() for a in figure.axes[::2]] == ["within layer 0", "into layer 0"]
    with pytest.raises(InputError, match="keeps no delays from before"):
        draw_delays(ModelFile(model.config, model.state_dict, {"first_delays": {"0.delay": [1]}}), "m.pt")
