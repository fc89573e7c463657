"""What decides the outcome of a training: options, presets, and the command that sets them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from delaynet_lava.errors import InputError

__all__ = ["PRESETS", "CueOptions", "command_line"]


@dataclass(frozen=True)
class CueOptions:
    """Everything that decides the outcome of a training, together with the seed.

    Attributes:
        neurons: of the hidden layer. delays: one a lattice group, in steps; the lag is one more.
        threshold: initial u_th in SLAYER's units. tau_ms, tau_out_ms: initial tau_R and tau_O.
        input_gain, radius, readout_gain: see :func:`delaynet_lava.nn.initial.initialise`.
        surrogate_width: of the paper's surrogate, in thresholds (the paper's own: 1 / 0.72).
        reset: "zero" or "subtract".
        feedback_grad: initial factor on the gradient along recurrent synapses.
        gradient_norm: the norm that factor aims at; control: how fast (0 leaves it fixed).
        branching: weight beta of the branching-factor loss, per sample of a batch of 64.
        lr: of Adam for weights and threshold; decays take 20 times that. clip: gradient norm.
        batch, epoch_samples: samples a step and an epoch.
        cues, wait_ms: of the full task. advance: accuracy that moves the curriculum on.
        anneal_epochs: epochs on the full task, while lr falls linearly to ``lr_end`` of itself.
        max_epochs: give up the curriculum here and anneal.
        average: decay of the running average of weights, per step.
        validation: samples of the validation split for each check, every 4th annealing epoch.
    """

    seed: int = 0
    neurons: int = 125
    delays: tuple[int, ...] = (0, 50, 62)
    threshold: float = 8.0
    tau_ms: float = 25.0
    tau_out_ms: float = 20.0
    input_gain: float = 0.4
    radius: float = 1.2
    readout_gain: float = 0.1
    surrogate_width: float = 1.39
    reset: str = "zero"
    feedback_grad: float = 0.2
    gradient_norm: float = 1.0
    control: float = 0.005
    branching: float = 2e-4
    lr: float = 5e-3
    lr_end: float = 0.01
    clip: float = 1.0
    batch: int = 64
    epoch_samples: int = 1024
    cues: int = 7
    wait_ms: int = 1200
    advance: float = 0.93
    anneal_epochs: int = 56
    max_epochs: int = 60
    average: float = 0.99
    validation: int = 1024

    def __post_init__(self) -> None:
        for name in ("neurons", "batch", "epoch_samples", "anneal_epochs", "max_epochs", "validation"):
            if getattr(self, name) < 1:
                raise InputError(f"training: {name}", f"{getattr(self, name)} is below 1")
        if self.seed < 0:
            raise InputError("training: seed", f"{self.seed} is negative")

    def curriculum(self) -> list[tuple[int, int]]:
        """Stages (cues, wait_ms), the full task last."""
        first = min(150, self.wait_ms)
        waits = [*range(first, self.wait_ms, 150), self.wait_ms]
        return [(k, first) for k in range(1, self.cues, 2)] + [(self.cues, w) for w in waits]


PRESETS = {
    "loihi2": CueOptions(),
    "smoke": CueOptions(
        neurons=27,
        cues=1,
        wait_ms=150,
        batch=32,
        epoch_samples=128,
        anneal_epochs=2,
        max_epochs=2,
        validation=64,
    ),
}


def command_line(options: CueOptions, preset: str, processes: int = 1) -> str:
    """The command that trains with these options."""
    base = replace(PRESETS[preset], seed=options.seed)
    program = "delaynet" if processes == 1 else f"torchrun --nproc-per-node {processes} -m delaynet_lava"
    parts = [f"{program} train cue --preset {preset} --seed {options.seed}"]
    for name, value in asdict(options).items():
        if value != getattr(base, name):
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            parts.append(f"--set {name}={text}")
    return " ".join(parts)
