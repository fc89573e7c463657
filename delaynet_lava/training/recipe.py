"""What a training is made of: sections of documented keys, checked as a whole.

A recipe knows no task. Text and files of recipes are read and written in
:mod:`delaynet_lava.training.recipe_file`; the keys' values are said here, once.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from delaynet_lava.decision import KINDS, Decision
from delaynet_lava.errors import InputError, InputErrors, shown
from delaynet_lava.fixedpoint import MEMBRANE_BITS
from delaynet_lava.nn.lattice import delay_groups

__all__ = [
    "LARGEST",
    "SECTIONS",
    "Allowed",
    "Averaging",
    "Curriculum",
    "Gradient",
    "Init",
    "Loss",
    "Network",
    "Optimiser",
    "Recipe",
    "Schedule",
    "allowed",
    "nearest",
    "of_layer",
    "plain",
    "recipe_of",
]

SURROGATES = ("paper", "triangle", "slayer")
"""Of :class:`~delaynet_lava.nn.DelayRecurrent`, whose own table comes with the compiled kernels."""


LARGEST = 1 << 53
"""Whole numbers from here on are none that anything could be done with."""


@dataclass(frozen=True)
class Allowed:
    """Which values a key can have.

    Attributes:
        kind: bool, int, float or str. many: a list of them.
        each: one value for all hidden layers, or a list with one for each.
        choices: the only values. least, above, most, below: bounds.
        about: what the key means, one line.
    """

    kind: type
    about: str
    many: bool = False
    each: bool = False
    choices: tuple[str, ...] = ()
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def says(self) -> str:
        """The allowed values, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        one, more = {
            bool: ("true or false", "true or false"),
            int: ("a whole number", "whole numbers"),
            float: ("a number", "numbers"),
            str: ("a text", "texts"),
        }[self.kind]
        names = ("of at least", "above", "of at most", "below")
        bounds = zip(names, (self.least, self.above, self.most, self.below), strict=True)
        text = f"a list of {more}" if self.many else one
        text += " and".join(f" {name} {bound:g}" for name, bound in bounds if bound is not None)
        return text + (", or a list with one for each layer" if self.each else "")

    def taken(self, value: Any) -> Any:
        """The value as a recipe keeps it: lists as tuples, numbers as floats where the key has floats.

        Raises:
            ValueError: the key cannot have it.
            OverflowError: it is larger than all numbers here.
        """
        if self.each and for_each(value, self.many):
            return tuple(self._of_one(part) for part in value)
        return self._of_one(value)

    def _of_one(self, value: Any) -> Any:
        if not self.many:
            return self._scalar(value)
        if not isinstance(value, (list, tuple)):
            raise ValueError(value)
        return tuple(self._scalar(part) for part in value)

    def _scalar(self, value: Any) -> Any:
        if type(value) is int and abs(value) >= LARGEST:
            raise OverflowError
        if self.kind is float and type(value) is int:
            value = float(value)
        if self.kind is str and type(value) is str:
            value.encode()  # TOML and JSON are UTF-8
        if type(value) is not self.kind or (self.choices and value not in self.choices):
            raise ValueError(value)
        if isinstance(value, (int, float)) and self.kind is not bool:
            inside = (
                math.isfinite(value)
                and (self.least is None or value >= self.least)
                and (self.above is None or value > self.above)
                and (self.most is None or value <= self.most)
                and (self.below is None or value < self.below)
            )
            if not inside:
                raise ValueError(value)
        return value


def for_each(value: Any, many: bool = False) -> bool:
    """Whether a value that may differ from layer to layer does: whether it is a list with one for each.

    Args:
        many: the value of one layer is a list itself.
    """
    if not isinstance(value, (list, tuple)):
        return False
    return not many or (len(value) > 0 and all(isinstance(part, (list, tuple)) for part in value))


def _key(default: Any, about: str, **bounds: Any) -> Any:
    kind = bounds.pop("kind", None)
    if kind is None:
        first = default[0] if isinstance(default, tuple) else default
        kind = type(first)
    many = bounds.pop("many", isinstance(default, tuple))
    return field(default=default, metadata={"allowed": Allowed(kind, about, many=many, **bounds)})


@dataclass(frozen=True)
class Network:
    """Layers of spiking neurons, one behind the other, and a layer that answers."""

    kind: str = _key(
        "delaynet",
        "delaynet trains neurons and weights, lif weights, src spiking recurrent cells; "
        "lsnn has floats and is never exported",
        choices=("delaynet", "lif", "src", "lsnn"),
    )
    layers: tuple[int, ...] = _key(
        (128,), "neurons of each hidden layer, the first one first", least=1, most=1 << 20
    )
    recurrent: bool | tuple[bool, ...] = _key(True, "whether a layer's spikes come back to it", each=True)
    delays: tuple[int, ...] | tuple[tuple[int, ...], ...] = _key(
        (0, 10, 30),
        "delay groups of recurrent spikes, steps; the lag is one more",
        least=0,
        most=(1 << 15) - 1,
        each=True,
    )
    shares: tuple[float, ...] | tuple[tuple[float, ...], ...] = _key(
        (), "share of the neurons in each delay group; empty: equal", kind=float, least=0, each=True
    )
    learn_delays: bool | tuple[bool, ...] = _key(
        False, "whether the delays are trained, each neuron's from where it begins", each=True
    )
    delays_in: tuple[int, ...] | tuple[tuple[int, ...], ...] = _key(
        (0,),
        "delay groups of the spikes that come to a layer from the one before, equal shares, steps",
        least=0,
        most=(1 << 15) - 1,
        each=True,
    )
    learn_delays_in: bool | tuple[bool, ...] = _key(
        False, "whether those are trained, each sender's from where it begins", each=True
    )
    max_delay: int = _key(62, "the largest delay that is learned, steps", least=1)
    threshold: float | tuple[float, ...] = _key(
        8.0, "first thresholds in SLAYER's units: 1/64 of the chip's", above=0, each=True
    )
    threshold_out: float = _key(8.0, "that of the answering layer, where loss.readout is count", above=0)
    reset: str | tuple[str, ...] = _key(
        "zero",
        "after a spike; chips have zero",
        choices=("zero", "subtract"),
        each=True,
    )
    tau_ms: float | tuple[float, ...] = _key(
        20.0, "first time constants of the hidden membranes, ms", above=0, each=True
    )
    tau_out_ms: float = _key(20.0, "that of the answering layer, ms", above=0)
    tau_min_ms: float = _key(0.1, "no time constant falls below it, ms", above=0)
    tau_max_ms: float = _key(100.0, "no time constant rises above it, ms", above=0)
    membrane_bits: int = _key(
        MEMBRANE_BITS, "bits of all membranes: 24 on the chip, fewer in the emulator only", least=2, most=24
    )
    full_scale_exp: int = _key(
        0, "fewer bits saturate at 2 to this; 0: the first above the threshold", least=0, most=23
    )
    full_scale_out_exp: int = _key(
        0, "the same of the answering layer; 0: the first above what it reaches", least=0, most=23
    )
    weight_bits: int | tuple[int, ...] = _key(
        8, "bits of the weight words of spiking recurrent cells", least=2, most=8, each=True
    )
    weight_exp: int | tuple[int, ...] = _key(
        2, "e, where a word w of theirs stands for w/64 times 2 to the -e", least=-6, most=12, each=True
    )
    output_bits: int = _key(0, "fraction bits of what they send; 0: spikes", least=0, most=8)
    cell: str = _key(
        "paper", "theirs: of the paper, or its simplification on an FPGA", choices=("paper", "fpga")
    )


@dataclass(frozen=True)
class Init:
    """Weights before the first step."""

    kind: str = _key(
        "uniform",
        "of all synapses; relay: layers of equal size begin by passing on the spikes of the one before",
        choices=("uniform", "relay"),
    )
    noise: float = _key(0.1, "uniform noise on a relay's weights, in thresholds", least=0)
    model: str = _key("", "a model.pt whose weights and delays to start from, without a curriculum")
    input_gain: float | tuple[float, ...] = _key(
        0.3, "input weights are drawn from +- this, in thresholds", least=0, each=True
    )
    rate: float = _key(
        0.02,
        "they are then scaled to so many spikes a neuron and step; 0: as drawn",
        least=0,
        below=1,
    )
    radius: float | tuple[float, ...] = _key(
        1.0, "spectral radius of |W_rec|, in thresholds", least=0, each=True
    )
    readout_gain: float = _key(0.5, "weights of the answering layer are drawn from +- this", least=0)


@dataclass(frozen=True)
class Loss:
    """What is made small."""

    kind: str = _key(
        "cross-entropy",
        "spike-rate is the squared distance from the rates below",
        choices=("cross-entropy", "spike-rate"),
    )
    readout: str = _key("mean", f"how the network answers: {', '.join(KINDS)}; over a window: sum:100:500")
    temperature: float = _key(1.0, "scores are divided by it before the cross-entropy", above=0)
    true_rate: float = _key(0.2, "spikes a step that spike-rate wants of the right neuron", least=0, most=1)
    false_rate: float = _key(0.02, "and of the others", least=0, most=1)
    branching: float = _key(0.0, "weight beta of the branching-factor loss, for a batch of 64", least=0)
    branching_over: str = _key(
        "sample", "whose change it counts; as published: batch", choices=("sample", "batch")
    )
    rate: float = _key(0.0, "weight of the spike rate (spikes a hidden neuron and step)", least=0)


@dataclass(frozen=True)
class Gradient:
    """How the loss reaches the weights."""

    rule: str = _key("bptt", "back through time, or forward in one sweep", choices=("bptt", "eprop"))
    surrogate: str = _key(
        "triangle", "derivative of a spike; that of the paper is flat above threshold", choices=SURROGATES
    )
    surrogate_width: float = _key(1.0, "its width in thresholds", above=0)
    dampening: float = _key(0.4, "factor on it", above=0)
    feedback: float = _key(
        1.0, "first factor on the gradient along recurrent synapses; 1 is exact", least=0, most=1
    )
    delay_window: int = _key(
        10, "steps to each side that the gradient of a learned delay looks at; it falls to 1", least=1
    )
    norm: float = _key(1.0, "gradient norm that this factor is steered to", above=0)
    control: float = _key(0.005, "how fast it is steered; 0 leaves it fixed", least=0)
    clip: float = _key(1.0, "the gradient is scaled to this norm where it is larger", above=0)


@dataclass(frozen=True)
class Optimiser:
    """What is done with the gradient."""

    name: str = _key("adam", "adamw keeps weight decay apart", choices=("adam", "adamw", "madgrad"))
    lr: float = _key(0.01, "learning rate of weights and thresholds", least=0)
    lr_decays: float = _key(20.0, "that of the decays (in 1/4096), in lr", least=0)
    lr_delays: float = _key(10.0, "that of learned delays (in steps), in lr", least=0)
    weight_decay: float = _key(0.0, "pulls weights and thresholds to zero; never the decays", least=0)
    betas: tuple[float, ...] = _key(
        (0.9, 0.99), "memory of the mean and of the square; madgrad's momentum is the first", least=0, below=1
    )


@dataclass(frozen=True)
class Schedule:
    """How long, and in which steps. Epochs count from the full task on; a curriculum comes before them."""

    epochs: int = _key(30, "on the full task", least=1)
    annealing: str = _key(
        "cosine", "how lr falls over them", choices=("constant", "linear", "exponential", "cosine")
    )
    lr_end: float = _key(0.02, "what is left of lr at their end", above=0, most=1)
    frozen: float = _key(
        0.2,
        "share of the epochs, the last ones, in which learned delays stay",
        least=0,
        below=1,
    )
    batch: int = _key(32, "samples a step, at most", least=1)
    epoch_samples: int = _key(0, "samples an epoch; 0: the training split, 1024 of an endless one", least=0)
    validation: int = _key(
        0, "samples of a validation, at most; 0: the split, 1024 of an endless one", least=0
    )
    validate_every: int = _key(2, "epochs on the full task from one validation to the next", least=1)
    held_out: float = _key(
        0.1, "share of the training split that validates where there is no such split", above=0, most=0.5
    )


@dataclass(frozen=True)
class Curriculum:
    """How the easier stages that a task offers are walked through."""

    walk: bool = _key(True, "through the stages, where the task has some; false: the full task at once")
    advance: float = _key(0.95, "accuracy of an epoch that moves it on", least=0, most=1)
    most_epochs: int = _key(30, "epochs after which it gives way to the full task", least=1)
    easy: float = _key(
        0.0,
        "share of the steps that take the stage's easy companion, where it has one",
        least=0,
        below=1,
    )
    training: str = _key("", "options added to the task's word for training samples, as in right_p=0.5,0.5")


@dataclass(frozen=True)
class Averaging:
    """Which weights are kept."""

    decay: float = _key(
        0.9, "of the running average of weights, a step; 0: the last weights", least=0, below=1
    )


SECTIONS: dict[str, type] = {
    "network": Network,
    "init": Init,
    "loss": Loss,
    "gradient": Gradient,
    "optimiser": Optimiser,
    "schedule": Schedule,
    "curriculum": Curriculum,
    "averaging": Averaging,
}


def allowed(section: str) -> dict[str, Allowed]:
    """The keys of a section, and what they can be."""
    return {f.name: f.metadata["allowed"] for f in fields(SECTIONS[section])}


def nearest(name: str) -> str:
    """A question after the known key that is meant by ``section.key``; empty where there is none like it."""
    keys = [f"{section}.{key}" for section in SECTIONS for key in allowed(section)]
    # A key of the right name in no section, or in another, is the first guess.
    own = [key for key in keys if key.partition(".")[2] == name.rpartition(".")[2]]
    found = own or difflib.get_close_matches(name[:100], keys, 1) or []
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def of_layer(value: Any, layer: int, many: bool = False) -> Any:
    """What a value for all layers, or a tuple with one for each, says of a layer; ``many`` as above."""
    return value[layer] if for_each(value, many) else value


@dataclass(frozen=True)
class Recipe:
    """Everything but task and seed that decides the outcome of a training.

    Raises:
        InputError: values that no training can have, all of them in one line.
    """

    network: Network = field(default_factory=Network)
    init: Init = field(default_factory=Init)
    loss: Loss = field(default_factory=Loss)
    gradient: Gradient = field(default_factory=Gradient)
    optimiser: Optimiser = field(default_factory=Optimiser)
    schedule: Schedule = field(default_factory=Schedule)
    curriculum: Curriculum = field(default_factory=Curriculum)
    averaging: Averaging = field(default_factory=Averaging)

    def __post_init__(self) -> None:
        problems = []
        for name, section in self.sections():
            if type(section) is not SECTIONS[name]:
                problems.append(f"{name}: is {shown(section)}, expected a {SECTIONS[name].__name__}")
                continue
            values = {key: getattr(section, key) for key in allowed(name)}
            problems += _taken(name, values, values)
            object.__setattr__(self, name, SECTIONS[name](**values))
        if problems or (problems := list(_contradictions(self))):
            raise InputErrors("recipe", problems)

    def sections(self) -> Iterator[tuple[str, Any]]:
        """Name and content of each section."""
        for name in SECTIONS:
            yield name, getattr(self, name)

    @property
    def decision(self) -> Decision:
        """How the network answers."""
        return Decision.parse(self.loss.readout)


def _contradictions(recipe: Recipe) -> Iterator[str]:
    """What does not go together though each value is allowed."""
    network, loss = recipe.network, recipe.loss
    try:
        answer = recipe.decision.kind
    except InputError as error:
        yield f"loss.readout: {error.problem}; {error.remedy}"
        answer = ""
    if loss.kind == "spike-rate" and answer not in ("count", ""):
        yield f"loss.kind: spike-rate is of spikes; make loss.readout count, it is {loss.readout}"
    if not network.layers:
        yield "network.layers: is empty; give the neurons of at least one hidden layer"
    if network.tau_min_ms > network.tau_max_ms:
        yield (
            f"network.tau_min_ms: {network.tau_min_ms} is above tau_max_ms, {network.tau_max_ms}, "
            "which leaves no time constant"
        )
    if len(recipe.optimiser.betas) != 2:
        yield f"optimiser.betas: has {len(recipe.optimiser.betas)} numbers; give two"
    lengths = list(_length_problems(recipe))
    yield from lengths or _delay_problems(network)
    yield from _rule_problems(network, loss, recipe.gradient, answer)


def _length_problems(recipe: Recipe) -> Iterator[str]:
    layers = len(recipe.network.layers)
    for name, section in recipe.sections():
        for key, rule in allowed(name).items():
            value = getattr(section, key)
            if rule.each and for_each(value, rule.many) and len(value) != layers:
                yield f"{name}.{key}: has {len(value)} values for {layers} layers"


def _delay_problems(network: Network) -> Iterator[str]:
    for layer, neurons in enumerate(network.layers):
        delays = of_layer(network.delays, layer, many=True)
        if not delays:
            yield f"network.delays: layer {layer} has none; write [0] for recurrence without delay"
            continue
        if of_layer(network.learn_delays, layer):
            if network.kind == "lsnn" or not of_layer(network.recurrent, layer):
                yield f"network.learn_delays: layer {layer} has no delays; make it recurrent, no lsnn"
            elif max(delays) > network.max_delay:
                yield f"network.delays: {max(delays)} is above max_delay, {network.max_delay}"
        yield from _arrival_problems(network, layer)
        try:
            delay_groups(neurons, delays, of_layer(network.shares, layer, many=True) or even(len(delays)))
        except InputError as error:
            yield f"network.delays, network.shares: {error.problem}"


def _arrival_problems(network: Network, layer: int) -> Iterator[str]:
    delays = of_layer(network.delays_in, layer, many=True)
    learned = of_layer(network.learn_delays_in, layer)
    if not delays:
        yield f"network.delays_in: layer {layer} has none; write [0] for spikes that are not delayed"
    elif network.kind in ("lsnn", "src") and (learned or any(delays)):
        yield f"network.delays_in: a network of kind {network.kind} has none; write [0]"
    elif learned and max(delays) > network.max_delay:
        yield f"network.delays_in: {max(delays)} is above max_delay, {network.max_delay}"


def _rule_problems(network: Network, loss: Loss, gradient: Gradient, answer: str) -> Iterator[str]:
    if gradient.rule == "eprop":
        unfit = {
            "a branching-factor loss": loss.branching > 0,
            "an lsnn": network.kind == "lsnn",
            "spiking recurrent cells": network.kind == "src",
            f"{len(network.layers)} layers": len(network.layers) > 1,
            f"loss.readout {loss.readout}": answer != "last",
            "membranes of fewer bits": network.membrane_bits < MEMBRANE_BITS,
            "learned delays": any(_flat((network.learn_delays, network.learn_delays_in))),
            "delays between layers": any(
                any(of_layer(network.delays_in, k, many=True)) for k in range(len(network.layers))
            ),
        }
        if any(unfit.values()):
            yield f"gradient.rule: eprop does without {', '.join(k for k, v in unfit.items() if v)}; use bptt"
    if network.kind == "lsnn":
        unfit = {
            "delays": any(d != 0 for d in _flat(network.delays)),
            "answer in spikes": answer == "count",
            "membranes of fewer bits": network.membrane_bits < MEMBRANE_BITS,
        }
        if any(unfit.values()):
            yield f"network.kind: an lsnn has no {' and no '.join(k for k, v in unfit.items() if v)}"


def _flat(value: Any) -> list[Any]:
    return [one for part in value for one in (part if isinstance(part, tuple) else (part,))]


def even(groups: int) -> tuple[float, ...]:
    """Equal shares."""
    return (1 / groups,) * groups


def plain(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """A recipe as TOML, JSON and a ``model.pt`` hold it: sections of numbers, texts and lists."""
    return {name: {k: _listed(v) for k, v in asdict(section).items()} for name, section in recipe.sections()}


def _listed(value: Any) -> Any:
    return [_listed(part) for part in value] if isinstance(value, tuple) else value


def recipe_of(table: Mapping[str, Any], base: Recipe | None = None, where: str = "recipe") -> Recipe:
    """A recipe from sections of keys; keys that it does not name are those of ``base``.

    Raises:
        InputError: unknown sections or keys, or values that cannot be; all of them in one line.
    """
    base = base or Recipe()
    problems = [
        f"{shown(k)[1:-1]}: is no section; they are {', '.join(SECTIONS)}" for k in table if k not in SECTIONS
    ]
    made = {}
    for name, section in base.sections():
        values, given = asdict(section), table.get(name, {})
        if isinstance(given, Mapping):
            problems += _taken(name, given, values)
        else:
            problems.append(f"{name}: is {shown(given)}, expected a section [{name}]")
        made[name] = SECTIONS[name](**values)
    if problems:
        raise InputErrors(where, problems)
    try:
        return Recipe(**made)
    except InputErrors as error:
        raise InputErrors(where, error.problems) from None


def _taken(section: str, given: Mapping[str, Any], values: dict[str, Any]) -> list[str]:
    """Put what is given for a section into its values, as far as it can be; what is wrong with the rest."""
    problems, rules = [], allowed(section)
    for key, value in given.items():
        if key not in rules:
            name = f"{section}.{shown(key)[1:-1]}"
            meant = nearest(name) or f"; those of [{section}] are {', '.join(rules)}"
            problems.append(f"{name}: is no key{meant}")
            continue
        try:
            values[key] = rules[key].taken(value)
        except OverflowError:
            problems.append(f"{section}.{key}: {shown(value)} is too large")
        except ValueError:
            problems.append(f"{section}.{key}: {shown(value)} is not {rules[key].says()}")
    return problems
