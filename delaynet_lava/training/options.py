"""What decides the outcome of a training: options, presets, and the command that sets them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from delaynet_lava.errors import InputError
from delaynet_lava.nn.lattice import PAPER_SHARES
from delaynet_lava.tasks.cue import RIGHT_P

__all__ = ["PRESETS", "CueOptions", "command_line", "explained"]

NETWORKS = ("delaynet", "lif", "lif-ff", "lsnn", "lsnn-ff")


def _option(default: Any, about: str) -> Any:
    return field(default=default, metadata={"about": about})


@dataclass(frozen=True)
class CueOptions:
    """Everything that decides the outcome of a training; :func:`explained` says what each one is.

    Raises:
        InputError: a value that no training can have.
    """

    seed: int = _option(0, "of weights, lattice and samples")
    init: str = _option("", "a model.pt whose weights and delays to start from, on the full task at once")
    network: str = _option("delaynet", f"which network: {', '.join(NETWORKS)}")
    rule: str = _option("bptt", "where gradients come from: bptt, eprop")
    neurons: int = _option(125, "of the hidden layer")
    delays: tuple[int, ...] = _option((0, 50, 62), "delay groups: one axonal delay each; the lag is one more")
    shares: tuple[float, ...] = _option(PAPER_SHARES, "share of the neurons in each delay group")
    threshold: float = _option(8.0, "initial u_th in SLAYER's units, 1/64 of the chip's")
    reset: str = _option("zero", "after a spike: zero (the chip), subtract (the paper's soft reset)")
    membrane_bits: int = _option(24, "bits of all membranes: 24 on the chip, fewer in the emulator only")
    full_scale_exp: int = _option(0, "fewer bits saturate at 2 to this; 0: the first above the threshold")
    full_scale_out_exp: int = _option(0, "the same of the readout; 0: the first above what it reaches")
    tau_ms: float = _option(100.0, "initial tau_R of the hidden membranes, ms")
    tau_out_ms: float = _option(20.0, "initial tau_O of the readout, ms")
    tau_min_ms: float = _option(0.1, "tau bounds: both taus stay above it after each step, ms")
    tau_max_ms: float = _option(100.0, "tau bounds: both taus stay below it after each step, ms")
    input_gain: float = _option(0.3, "input weights are drawn from +- this, in thresholds")
    radius: float = _option(1.2, "initial spectral radius of |W_rec|, in thresholds")
    readout_gain: float = _option(0.8, "readout weights are drawn from +- this")
    temperature: float = _option(8.0, "readout membranes are divided by it before the cross-entropy")
    surrogate: str = _option(
        "triangle", "surrogate derivative: paper (flat above threshold), triangle, slayer (exponential)"
    )
    surrogate_width: float = _option(1.0, "its width in thresholds (the paper's own: 1 / 0.72)")
    dampening: float = _option(0.4, "factor on the surrogate derivative")
    feedback_grad: float = _option(0.2, "initial factor on the gradient along recurrent synapses; 1 is exact")
    gradient_norm: float = _option(1.0, "gradient norm that this factor is steered to")
    control: float = _option(0.005, "how fast it is steered; 0 leaves it fixed")
    branching: float = _option(5e-4, "weight beta of the branching-factor loss, for a batch of 64")
    branching_over: str = _option("sample", "population whose change it counts: sample; batch (as published)")
    rate_weight: float = _option(5.0, "weight of the spike rate (spikes a neuron and step) in the loss")
    optimiser: str = _option("adam", "adam, madgrad")
    lr: float = _option(3.5e-3, "learning rate of weights and threshold")
    lr_decays: float = _option(20.0, "that of the decays (in 1/4096), in lr")
    lr_end: float = _option(0.02, "what is left of lr at the end of the full task")
    annealing: str = _option("linear", "how it falls on the full task: linear, exponential")
    clip: float = _option(1.0, "clip norm of the gradient")
    batch: int = _option(32, "samples a step")
    epoch_samples: int = _option(1024, "samples an epoch, all fresh")
    cues: int = _option(7, "of the full task")
    wait_ms: int = _option(1200, "of the full task")
    right_p: tuple[float, ...] = _option((0.5, 0.5), "probabilities of the right side in training samples")
    blocked: float = _option(0.0, "share of training samples with all cues of one side before the other's")
    short_waits: float = _option(0.5, "share of the steps with a longer wait that take the shortest instead")
    curriculum: bool = _option(True, "first more cues, then a longer wait; false: the full task at once")
    advance: float = _option(0.97, "accuracy of an epoch that moves the curriculum on")
    anneal_epochs: int = _option(60, "epochs on the full task")
    max_epochs: int = _option(30, "epochs after which the curriculum gives way to the full task")
    average: float = _option(0.99, "decay of the running average of weights, a step; 0: the last weights")
    validation: int = _option(1024, "samples of each validation, every 4th epoch on the full task")

    def __post_init__(self) -> None:
        for name in ("neurons", "batch", "epoch_samples", "anneal_epochs", "max_epochs", "validation"):
            if getattr(self, name) < 1:
                raise InputError(f"training: {name}", f"{getattr(self, name)} is below 1")
        if self.seed < 0:
            raise InputError("training: seed", f"{self.seed} is negative")
        choices = {
            "network": NETWORKS,
            "rule": ("bptt", "eprop"),
            "branching_over": ("sample", "batch"),
            "optimiser": ("adam", "madgrad"),
            "annealing": ("exponential", "linear"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise InputError(
                    f"training: {name}", f"{getattr(self, name)!r} is not one of {', '.join(known)}"
                )
        if self.rule == "eprop" and (self.branching or self.network.startswith("lsnn")):
            raise InputError(
                "training: rule", "eprop has no branching-factor loss and knows no lsnn", "use bptt"
            )
        if not 0 <= self.short_waits < 1:
            raise InputError("training: short_waits", f"{self.short_waits} is not a share from 0 to below 1")
        if not 0 < self.tau_min_ms <= self.tau_max_ms:
            raise InputError(
                "training: tau bounds", f"{self.tau_min_ms} to {self.tau_max_ms} ms hold no time constant"
            )

    @property
    def first_wait_ms(self) -> int:
        """The curriculum's shortest wait."""
        return min(150, self.wait_ms)

    def stages(self) -> list[tuple[int, int]]:
        """Stages (cues, wait_ms) of the curriculum, the full task last."""
        if self.init or not self.curriculum:
            return [(self.cues, self.wait_ms)]
        first = self.first_wait_ms
        waits = [*range(first, self.wait_ms, 150), self.wait_ms]
        return [(k, first) for k in range(1, self.cues, 2)] + [(self.cues, w) for w in waits]


_LOIHI2 = CueOptions()
# The recipe of examples/models/cue_dense.pt: four times the spikes, and membranes that can do with 8 bits.
_DENSE = replace(
    _LOIHI2,
    tau_ms=25.0,
    tau_max_ms=1e6,
    input_gain=0.4,
    readout_gain=0.1,
    temperature=1.0,
    surrogate="paper",
    surrogate_width=1.39,
    dampening=1.0,
    branching=2e-4,
    rate_weight=0.0,
    lr=5e-3,
    lr_end=0.01,
    batch=64,
    right_p=RIGHT_P,
    short_waits=0.0,
    advance=0.93,
    anneal_epochs=56,
    max_epochs=60,
)
_SMOKE = {
    "neurons": 27,
    "cues": 1,
    "wait_ms": 150,
    "epoch_samples": 128,
    "anneal_epochs": 2,
    "max_epochs": 2,
    "validation": 64,
}
# The paper's network, which no Loihi takes: soft reset, lags of 1, 80 and 100, taus up to 50 ms, MADGRAD, the
# branching-factor loss over the batch; in integers, where a threshold of 8 stands for the paper's 0.72, and
# with the curriculum and the steered gradient of the other presets.
_PAPER = replace(
    _LOIHI2,
    delays=(0, 79, 99),
    reset="subtract",
    tau_ms=20.0,
    tau_max_ms=50.0,
    surrogate="paper",
    surrogate_width=1.39,
    dampening=1.0,
    branching=2e-6,
    branching_over="batch",
    rate_weight=0.0,
    optimiser="madgrad",
    lr=0.01,
    advance=0.93,
    anneal_epochs=32,
)
# The baselines begin with the full task, as the works that the paper compares with do.
_LIF = replace(
    _LOIHI2,
    network="lif",
    neurons=100,
    delays=(0,),
    shares=(1.0,),
    threshold=16.0,
    reset="subtract",
    tau_ms=2000.0,
    tau_max_ms=1e6,
    input_gain=0.05,
    radius=0.5,
    readout_gain=0.1,
    temperature=1.0,
    surrogate="paper",
    surrogate_width=1.39,
    dampening=1.0,
    feedback_grad=1.0,
    control=0.0,
    branching=0.0,
    rate_weight=0.0,
    lr=5e-3,
    lr_end=0.01,
    annealing="exponential",
    batch=64,
    curriculum=False,
    right_p=RIGHT_P,
    short_waits=0.0,
    anneal_epochs=25,
)
# An LSNN whose rate runs away does not come back.
_LSNN = replace(
    _LIF,
    network="lsnn",
    tau_ms=20.0,
    threshold=0.6,
    input_gain=0.4,
    radius=1.0,
    lr=1e-3,
    annealing="linear",
    rate_weight=2.0,
)
PRESETS: dict[str, CueOptions] = {
    "loihi2": _LOIHI2,
    "loihi2-dense": _DENSE,
    "paper": _PAPER,
    "smoke": replace(_LOIHI2, **_SMOKE),  # type: ignore[arg-type]
    "lif-2s": _LIF,
    "lif-2s-ff": replace(_LIF, network="lif-ff", annealing="linear"),
    "lif-20ms": replace(_LIF, tau_ms=20.0, input_gain=0.4, radius=1.0),
    "lif-2s-eprop": replace(_LIF, rule="eprop", rate_weight=10.0),
    "lsnn": _LSNN,
    "lsnn-ff": replace(_LSNN, network="lsnn-ff", lr=5e-3),
}


def explained(options: CueOptions) -> list[tuple[str, str, str]]:
    """Name, value and meaning of every option, for people."""
    return [(f.name, text_of(getattr(options, f.name)), f.metadata["about"]) for f in fields(options)]


def text_of(value: Any) -> str:
    """An option's value as a command line takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def command_line(options: CueOptions, preset: str, processes: int = 1) -> str:
    """The command that trains with these options."""
    base = replace(PRESETS[preset], seed=options.seed)
    program = "delaynet" if processes == 1 else f"torchrun --nproc-per-node {processes} -m delaynet_lava"
    parts = [f"{program} train cue --preset {preset} --seed {options.seed}"]
    for name, value in asdict(options).items():
        if value != getattr(base, name):
            parts.append(f"--set {name}={text_of(value)}")
    return " ".join(parts)
