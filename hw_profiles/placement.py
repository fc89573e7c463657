"""Neurons and synapses onto the cores of a chip: how many cores and chips, and what fills them.

What one core holds is a range of neurons of one or several layers, with every synapse onto them. Five
resources are counted, each by the rule that :data:`RESOURCES` states; where the profile does not know a
capacity, the resource is counted, does not limit, and :attr:`Placement.notes` says so. Chips are filled
core by core; what a message between chips costs is not modelled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from delaynet_lava.errors import InputError
from delaynet_lava.hw_profiles import HardwareProfile
from delaynet_lava.hw_profiles.cores import (
    AXONS_IN,
    AXONS_OUT,
    MEMORY,
    NEURONS,
    OUTSIDE,
    RESOURCES,
    Demand,
    Part,
    least_cores,
    reached,
)
from delaynet_lava.network import Network, Src
from delaynet_lava.pictures import COLOURS, GREY, bare

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLUMNS", "MODEL_COLUMNS", "Core", "Placement", "draw_placement", "place"]

FEW = 12  # cores of which a picture has room for every number
LINES = 2  # cores that are drawn as lines
COLUMNS = ("core", "holds", *(r.name for r in RESOURCES), "synapses", "longest delay")
MODEL_COLUMNS = ("resource", "a core has", "unit", "counted as", "status", "source")


@dataclass(frozen=True)
class Core:
    """What a core holds, and how much of each of :data:`RESOURCES` it uses, in their order."""

    parts: tuple[Part, ...]
    used: tuple[int, ...]
    synapses: int
    longest_delay: int


@dataclass(frozen=True)
class Placement:
    """A network on the cores of a chip.

    Attributes:
        profile: its name.
        cores: in order; chip k holds ``cores_per_chip`` of them from ``k * cores_per_chip`` on.
        capacity: of a core, in the order of :data:`RESOURCES`; None where unknown.
        bounds: what -> the least number of cores that any placement under these rules needs for it.
        cores_per_chip: usable ones; None where unknown, and then ``chips`` is None too.
        systems: name -> chips, those of the profile that hold the network.
        notes: one line each: what is not known, and what does not fit.
    """

    profile: str
    cores: tuple[Core, ...]
    capacity: tuple[int | None, ...]
    bounds: dict[str, int]
    cores_per_chip: int | None = None
    chips: int | None = None
    systems: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def bound(self) -> int:
        """The largest of the lower bounds."""
        return max(self.bounds.values())

    def utilisation(self, core: Core) -> list[float | None]:
        """Share of each resource that a core uses; None where its capacity is unknown."""
        return [None if c is None else u / c for u, c in zip(core.used, self.capacity, strict=True)]

    def core_of(self, layer: int) -> np.ndarray:
        """int64 (neurons,), the number of the core that holds each neuron of a layer."""
        found = [(p, k) for k, core in enumerate(self.cores) for p in core.parts if p.layer == layer]
        place: np.ndarray = np.full(max(p.stop for p, _ in found), -1, np.int64)
        for part, k in found:
            place[part.start : part.stop] = k
        return place

    def rows(self) -> list[list[str]]:
        """A line a core under :data:`COLUMNS`, with the share of what is known to be limited."""
        lines = []
        for k, core in enumerate(self.cores):
            shares = zip(core.used, self.utilisation(core), strict=True)
            cells = [f"{u:,}" if share is None else f"{u:,} ({share:.1%})" for u, share in shares]
            holds = ", ".join(map(str, core.parts))
            lines.append([str(k), holds, *cells, f"{core.synapses:,}", str(core.longest_delay)])
        return lines

    def model_rows(self) -> list[list[str]]:
        """A line a resource under :data:`MODEL_COLUMNS`: what takes one, and how sure that is."""
        capacities = ["unknown" if c is None else f"{c:,}" for c in self.capacity]
        return [
            [r.name, c, r.unit, r.rule, r.status, r.source]
            for r, c in zip(RESOURCES, capacities, strict=True)
        ]

    def summary(self) -> list[tuple[str, str]]:
        """What the table comes to: cores, the lower bounds beside them, chips, systems, notes."""
        bounds = ", ".join(f"{name} {n}" for name, n in self.bounds.items())
        chips = "unknown" if self.chips is None else f"{self.chips} ({self.cores_per_chip} usable cores each)"
        systems = ", ".join(f"{name} ({n} chips)" if n > 1 else name for name, n in self.systems.items())
        return [
            ("cores", f"{len(self.cores)} (at least {self.bound}: {bounds})"),
            ("chips", chips),
            ("fits", systems or "no system that the profile names"),
            *(("note", note) for note in self.notes),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        names = [r.name for r in RESOURCES]
        return {
            "profile": self.profile,
            "cores_needed": len(self.cores),
            "cores_bound": self.bound,
            "bounds": self.bounds,
            "cores_per_chip": self.cores_per_chip,
            "chips_needed": self.chips,
            "systems": self.systems,
            "notes": list(self.notes),
            "resources": [{**vars(r), "capacity": c} for r, c in zip(RESOURCES, self.capacity, strict=True)],
            "cores": [
                {
                    "parts": [[p.layer, p.start, p.stop] for p in core.parts],
                    "used": dict(zip(names, core.used, strict=True)),
                    "utilisation": dict(zip(names, self.utilisation(core), strict=True)),
                    "synapses": core.synapses,
                    "longest_delay": core.longest_delay,
                }
                for core in self.cores
            ],
        }


def _fill(
    demand: Demand, layer: int, axons_out: np.ndarray, first: np.ndarray, capacity: np.ndarray, chip: str
) -> list[Part | None]:
    """Neurons in order onto a core with ``first`` left, then onto empty ones, each as full as it gets.

    Returns:
        A part a core, the core already begun first; None: no neuron went there.
    """
    into = demand.into[layer]
    steps = [np.diff(demand.tables[id(p)]) for p in into]

    def empty() -> tuple[np.ndarray, list[np.ndarray]]:
        return np.zeros(len(RESOURCES), np.int64), [np.zeros(p.present.shape[1], np.int64) for p in into]

    parts: list[Part | None] = []
    left, start, (used, lists) = first, 0, empty()
    for i in range(demand.sizes[layer]):
        senders = [np.flatnonzero(p.present[i]) for p in into]
        for fresh in (False, True):
            if fresh:
                parts.append(Part(layer, start, i) if i > start else None)
                left, start, (used, lists) = capacity, i, empty()
            need = np.array([1, 0, axons_out[i], 0, demand.slots[layer][i]], np.int64)
            for step, counts, those in zip(steps, lists, senders, strict=True):
                need[AXONS_IN] += np.count_nonzero(counts[those] == 0)
                need[MEMORY] += step[counts[those]].sum()
            if (used + need <= left).all():
                break
        else:
            k = int(np.argmax(need > capacity))
            raise InputError(
                f"layer {layer}: neuron {i}",
                f"takes {need[k]:,} of {RESOURCES[k].name}, a core of {chip} has {int(capacity[k]):,}",
                "remove synapses or spread the layer's work over more layers",
            )
        used += need
        for counts, those in zip(lists, senders, strict=True):
            counts[those] += 1
    return [*parts, Part(layer, start, demand.sizes[layer])]


class _Cores:
    """Cores as they fill: what each holds and what it has left."""

    def __init__(self, demand: Demand, capacity: np.ndarray, chip: str) -> None:
        self.demand, self.capacity, self.chip = demand, capacity, chip
        self.parts: list[list[Part]] = []
        self.left: list[np.ndarray] = []

    def needs(self, part: Part, axons_out: np.ndarray) -> np.ndarray:
        return self.demand.of_part(part, int(axons_out[part.start : part.stop].sum()))

    def plan(self, layer: int, axons_out: np.ndarray) -> dict[int, Part]:
        """Core -> part: the whole layer on the first core with room, else from the last core on."""
        whole = Part(layer, 0, self.demand.sizes[layer])
        need = self.needs(whole, axons_out)
        for core, room in enumerate(self.left):
            if (need <= room).all():
                return {core: whole}
        first = self.left[-1] if self.left else self.capacity
        filled = _fill(self.demand, layer, axons_out, first, self.capacity, self.chip)
        return {k: part for k, part in enumerate(filled, max(0, len(self.parts) - 1)) if part}

    def has_room(self, plan: dict[int, Part], axons_out: np.ndarray) -> bool:
        rooms = [(self.left[k] if k < len(self.left) else self.capacity, part) for k, part in plan.items()]
        return all((self.needs(part, axons_out) <= room).all() for room, part in rooms)

    def add(self, plan: dict[int, Part], axons_out: np.ndarray) -> None:
        while len(self.parts) <= max(plan):
            self.parts.append([])
            self.left.append(self.capacity)
        for core, part in plan.items():
            self.parts[core].append(part)
            self.left[core] = self.left[core] - self.needs(part, axons_out)


def _spread(demand: Demand, capacity: np.ndarray, chip: str) -> list[list[Part]]:
    """Layers from the last to the first, so that a sender's destinations stand when it is placed.

    How many cores a neuron's recurrent synapses reach depends on where its own layer goes. A number that
    is never exceeded is found from below: as many as its synapses, at most the cores of the layer. Then
    what is really reached is counted and tried again, as long as that takes fewer cores and fits.
    """
    cores = _Cores(demand, capacity, chip)
    of_layer: dict[int, list[Part]] = {}
    for layer, size in reversed(list(enumerate(demand.sizes))):
        forward: np.ndarray = np.zeros(size, np.int64)
        back = None
        for p in demand.out_of(layer):
            if p.target == layer:
                back = p
            else:
                forward += reached(p, of_layer[p.target])
        axons_out, plan = forward, {}
        if back is None or np.isinf(capacity[AXONS_OUT]):
            plan = cores.plan(layer, axons_out)
        else:
            assumed = 0
            while len(plan) > assumed or not plan:
                assumed = max(1, len(plan))
                plan = cores.plan(layer, forward + np.minimum(back.fan_out, assumed))
            axons_out = forward + reached(back, list(plan.values()))
            while True:
                closer = cores.plan(layer, axons_out)
                needed = forward + reached(back, list(closer.values()))
                if max(closer) >= max(plan) or not cores.has_room(closer, needed):
                    break
                plan, axons_out = closer, needed
        cores.add(plan, axons_out)
        of_layer[layer] = list(plan.values())
    return cores.parts


def _order(part: Part) -> tuple[int, int]:
    return part.layer, part.start


def place(network: Network, profile: HardwareProfile) -> Placement:
    """Assign every neuron to a core, greedily, within what the profile says a core holds.

    Neurons of a layer stay in order and in one piece where they fit; the result is checked against no
    estimate but counted anew from the parts. :attr:`Placement.bounds` says how far from the best it can be.

    Raises:
        InputError: a neuron that alone exceeds a core, with its layer, number, need and limit.
    """
    demand = Demand(network, profile)
    known = [None if r.key is None else profile.get(r.key) for r in RESOURCES]
    capacity = np.array([np.inf if c is None else c for c in known])
    spread = _spread(demand, capacity, profile.name)
    sent = [np.zeros(size, np.int64) for size in demand.sizes]
    for p in demand.all():
        if p.sender != OUTSIDE:
            sent[p.sender] += reached(p, [q for parts in spread for q in parts if q.layer == p.target])
    cores = []
    for parts in sorted((sorted(parts, key=_order) for parts in spread), key=lambda parts: _order(parts[0])):
        used = sum(demand.of_part(q, int(sent[q.layer][q.start : q.stop].sum())) for q in parts)
        held = [(p, slice(q.start, q.stop)) for q in parts for p in demand.into[q.layer]]
        cores.append(
            Core(
                tuple(parts),
                tuple(int(n) for n in used),  # type: ignore[union-attr]
                sum(int(p.fan_in[rows].sum()) for p, rows in held),
                max((int(p.delay[rows].max()) for p, rows in held), default=0),
            )
        )
    per_chip = profile.get("cores_per_chip_usable") or profile.get("cores_per_chip")
    chips = None if per_chip is None else -(-len(cores) // int(per_chip))
    systems = {n: s.chips for n, s in profile.systems.items() if (profile.cores(n) or 0) >= len(cores)}
    return Placement(
        profile.name, tuple(cores), tuple(None if c is None else int(c) for c in known),
        least_cores(demand, capacity), per_chip, chips, systems,
        (*_notes(profile, known, chips, systems, len(cores)), *_cells(network)),
    )  # fmt: skip


def _cells(network: Network) -> list[str]:
    which = [str(k) for k, layer in enumerate(network.layers) if isinstance(layer.neuron, Src)]
    if not which:
        return []
    return [
        f"Spiking Recurrent Cells (layer {', '.join(which)}) count as one neuron each; they have three "
        "states, and no source says what a microcode neuron takes of a core"
    ]


def _notes(
    profile: HardwareProfile, known: list, chips: int | None, systems: dict[str, int], cores: int
) -> tuple[str, ...]:
    notes = []
    silent = [r.name for r, c in zip(RESOURCES, known, strict=True) if c is None]
    if silent:
        notes.append(f"{profile.name} gives no capacity for {', '.join(silent)}: counted, but no limit here")
    if profile.get("synapse_word_bits") is None:
        notes.append("synapse memory is counted in the format of Loihi 1, words of 64 bits (inferred)")
    if chips is not None and chips > 1:
        notes.append(f"{cores} cores exceed one chip: {chips} chips of {profile.name} are needed")
    if chips is not None and profile.systems and not systems:
        largest = max(s.chips for s in profile.systems.values())
        notes.append(f"{chips} chips exceed the largest system that {profile.name} names, {largest} chips")
    return tuple(notes)


def _draw_few(placement: Placement) -> Figure:
    """A line for each resource and core: how much of it is used, as far as a core's capacity is known."""
    from matplotlib.figure import Figure

    shown = [k for k in range(len(RESOURCES)) if any(core.used[k] for core in placement.cores)]
    rows = [(k, number) for k in shown for number in range(len(placement.cores))]
    figure = Figure(figsize=(7.5, 0.7 + 0.26 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    bare(axes)
    names = []
    for line, (k, number) in enumerate(rows):
        used, capacity = placement.cores[number].used[k], placement.capacity[k]
        share = 0.0 if capacity is None else 100 * used / capacity
        known = "capacity unknown" if capacity is None else f"of {capacity:,}, {share:.1f} %"
        axes.barh(line, share, 0.7, color=COLOURS[number % len(COLOURS)])
        inside = share > 60
        axes.text(
            share - 1 if inside else share + 1, line, f"{used:,} {known}", va="center",
            ha="right" if inside else "left", fontsize=8, color="white" if inside else GREY,
        )  # fmt: skip
        names.append(
            RESOURCES[k].name if len(placement.cores) == 1 else f"{RESOURCES[k].name}, core {number}"
        )
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of what a core has", fontsize=8)
    return figure


def draw_placement(placement: Placement) -> Figure:
    """How much of each resource each core uses.

    Of a few cores a line each; of more a panel a resource, neurons by layer, capacities as dotted lines.
    """
    from matplotlib.figure import Figure

    if len(placement.cores) <= LINES:
        return _draw_few(placement)
    shown = [k for k in range(len(RESOURCES)) if any(core.used[k] for core in placement.cores)]
    figure = Figure(figsize=(9.0, 0.8 + 1.3 * len(shown)), layout="constrained")
    cores = len(placement.cores)
    few, places = cores <= FEW, np.arange(cores)
    grid = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axes, k in zip(grid, shown, strict=True):
        bare(axes)
        used = np.array([core.used[k] for core in placement.cores])
        name, capacity = RESOURCES[k].name, placement.capacity[k]
        scale, top = (1.0, used.max()) if capacity is None else (capacity / 100, 100)
        axes.set_title(
            f"{name}, capacity unknown" if capacity is None else f"{name}, % of {capacity:,}",
            fontsize=9,
            loc="left",
        )
        if capacity is not None:
            axes.axhline(100, color=GREY, linewidth=1, linestyle=":")
        axes.set_ylim(0, top * (1.3 if few else 1.1))
        width = 0.8 if few else 1.0
        if k == NEURONS:
            below = np.zeros(cores)
            for layer in sorted({p.layer for core in placement.cores for p in core.parts}):
                parts = [[p for p in core.parts if p.layer == layer] for core in placement.cores]
                height = np.array([sum(p.stop - p.start for p in held) for held in parts]) / scale
                colour = COLOURS[layer % len(COLOURS)]
                axes.bar(places, height, width, below, color=colour, label=f"layer {layer}")
                below += height
            # The layers from left to right, beside the title.
            axes.legend(
                fontsize=8, frameon=False, ncols=8, loc="lower right", bbox_to_anchor=(1, 0.98), borderpad=0
            )
        else:
            axes.bar(places, used / scale, width, color="#8f8f8f")
        if few:
            for x, value in zip(places, used, strict=True):
                axes.text(x, value / scale, f"{value:,}", ha="center", va="bottom", fontsize=8, color=GREY)
    grid[-1].set_xlabel("core")
    grid[-1].set_xlim(-0.6, max(cores, FEW) - 0.4)
    if few:
        grid[-1].set_xticks(places)
    figure.suptitle(
        f"{cores} core{'s' * (cores > 1)} of {placement.profile}, at least {placement.bound}", fontsize=10
    )
    return figure
