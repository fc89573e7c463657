"""A :class:`delaynet_lava.analysis.report.Report` in words, tables and pictures: for page and terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from delaynet_lava.analysis import activity, bitdepth, sweep
from delaynet_lava.analysis.confusion import DRAWN, draw_classes, draw_confusion
from delaynet_lava.analysis.cost import COLUMNS, CORE_COLUMNS, ESTIMATE_COLUMNS, OPERATIONS
from delaynet_lava.analysis.memory import wilson
from delaynet_lava.analysis.page import Picture, Section, Table, Verdict
from delaynet_lava.analysis.report import KEPT, Report, Run, Sweep, lattice, recorded_findings
from delaynet_lava.errors import InputError
from delaynet_lava.evaluation import class_rows, unwanted
from delaynet_lava.hw_profiles import placement
from delaynet_lava.hw_profiles.rules import RULES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["bit_depth_figure", "sections", "sweep_figure", "verdict"]

FEW = 8  # entries of a list that are written out
LINE = 1000  # characters of a line of provenance
STATES = {"u": "current u", "v": "membrane v"}


def sections(report: Report, page: bool = True) -> list[Section]:
    """All parts that the report has, in order.

    Args:
        page: with pictures, and the tables that say how things are counted; a terminal has no room.
    """
    parts = [
        Section("At a glance", tables=[Table(("", "value"), _glance(report))]),
        _layers(report),
        _rules(report, page),
        _overflow(report),
        _bit_depth(report, page),
    ]
    if report.placement is not None:
        parts.append(_placement(report.placement, page))
    if report.run is not None:
        parts.append(_classes(report.run, page))
        parts.append(_cost(report.run))
        if page:
            parts.append(_activity(report, report.run))
    if report.sweep is not None:
        parts.append(_sweep(report.sweep, page))
    provenance = [(_line(key), _line(_short(value))) for key, value in report.network.provenance.items()]
    if provenance:
        parts.append(Section("Provenance", tables=[Table(("", "value"), provenance)]))
    return parts


def verdict(report: Report) -> Verdict:
    """Of the rules, which decide the exit code, and of overflows that were seen."""
    name, warned = report.profile.name, len(report.findings) - report.broken
    seen = [row for row in report.overflow if _lost(report, row)]
    if report.broken:
        first = next(finding for finding in report.findings if finding.severity == "error")
        count = "a rule" if report.broken == 1 else f"{report.broken} rules"
        lost = f". On the samples {_seen(seen)}." if seen else ""
        what = f"{count} of {name}: {first.rule}, {first.where}: {first.problem}"
        return Verdict("bad", "Broken", what + (", and more" if report.broken > 1 else "") + lost)
    if seen:
        return Verdict("warn", "Overflow", f"on the samples {_seen(seen)}; the rules of {name} are kept")
    if warned:
        return Verdict("warn", "Kept with warnings", f"the rules of {name}: {report.findings[0]}")
    return Verdict("good", "Kept", f"all rules of {name}")


def _overflows(run: Run, row: dict[str, Any]) -> int:
    counts = run.evaluation.u_wraps if row["state"] == "u" else run.evaluation.v_saturations
    return counts[row["layer"]]


def _lost(report: Report, row: dict[str, Any]) -> int:
    """Overflows that nobody wanted: narrow membranes are made to clip."""
    if report.run is None:
        return 0
    if row["state"] == "u":
        return _overflows(report.run, row)
    return unwanted(report.network, report.run.evaluation.v_saturations)[row["layer"]]


def _seen(rows: Sequence[dict[str, Any]]) -> str:
    does = {"u": "wrapped", "v": "saturated"}
    return ", ".join(f"{STATES[row['state']]} of layer {row['layer']} {does[row['state']]}" for row in rows)


def _cores(placed: placement.Placement) -> str:
    used = len(placed.cores)
    if used == placed.bound:
        return f"{used}, and no placement does with fewer"
    return f"{used}; no placement does with fewer than {placed.bound}"


def _glance(report: Report) -> list[tuple[str, str]]:
    warned = len(report.findings) - report.broken
    verdict = "all kept"
    if report.findings:
        verdict = f"{report.broken} broken, {warned} warning{'s' * (warned != 1)}"
    rows = [(f"rules of {report.profile.name}", verdict), ("overflow", _cleared(report))]
    for row in report.bit_depth():
        if row["lag_ms"] is not None:
            rows.append((f"memory of layer {row['layer']}", _remembers(row, report.asked_ms)))
    if report.placement is not None:
        rows.append(("cores", _cores(report.placement)))
    if report.run is not None:
        operations = next(c for c in report.run.cost.counts if c.name == OPERATIONS)
        rows += [
            ("task", report.run.task),
            ("right", _share(report.run.right, report.run.evaluation.samples)),
            (OPERATIONS, f"{operations.mean:,.0f} an inference"),
        ]
    if report.sweep is not None:
        rows.append((sweep.KINDS[report.sweep.kind], _smallest(report.sweep)))
    return rows + [("left out", line) for line in report.left_out]


def _share(right: int, samples: int) -> str:
    return f"{right} of {samples}: {_percent(right, samples)}"


def _percent(right: int, samples: int) -> str:
    """With its 95 % confidence interval."""
    low, high = wilson(right, samples)
    return f"{100 * right / samples:.2f} % ({100 * low:.1f} to {100 * high:.1f})"


# ------------------------------------------------------------------ the network and its rules


def _layers(report: Report) -> Section:
    names = {name: name.replace("_", " ") for name in report.layers()[0]}
    names |= {"tau_u_ms": "tau of u, ms", "tau_ms": "tau of v, ms"}
    layers = [
        [
            "-" if row["dv"] is None and name in ("vth", "dv", "tau_ms", "reset", "membrane_bits")
            else _ms(row[name], ".3f") if "tau" in name else str(row[name])
            for name in names
        ]
        for row in report.layers()
    ]  # fmt: skip
    synapses = [
        [
            row["synapses"],
            "x".join(map(str, row["shape"])),
            f"{row['present']:,}",
            f"{row['weight_min']} to {row['weight_max']}",
            str(row["weight_exp"]),
            _delays(row["delays"]),
        ]
        for row in report.synapses()
    ]
    return Section(
        "Layers and synapses",
        tables=[
            Table(tuple(names.values()), layers),
            Table(("synapses", "shape", "present", "weights", "exp", "delays"), synapses),
        ],
    )


def _ms(value: float | None, form: str = ",.1f") -> str:
    return "endless" if value is None else format(value, form) if value else "0"


def _delays(delays: Sequence[int]) -> str:
    if len(delays) <= FEW:
        return " ".join(map(str, delays)) or "-"
    return f"{delays[0]} to {delays[-1]} ({len(delays)} values)"


def _rules(report: Report, page: bool) -> Section:
    # An error comes last, so that it is what is said where there are warnings too.
    words = {"warning": "warning", "error": "broken"}
    found = {f.rule: words[f.severity] for f in sorted(report.findings, key=lambda f: f.severity == "error")}
    rows = [
        [name, found.get(name, "kept"), (rule.__doc__ or "").split(".")[0]]
        for name, (_, rule) in RULES.items()
    ]
    lines = [str(finding) for finding in report.findings] or [f"All rules of {report.profile.name} are kept."]
    if report.profile.unknown:
        unknown = ", ".join(report.profile.unknown)
        lines.append(f"Not known of {report.profile.name}, and so no limit here: {unknown}.")
    recorded = recorded_findings(report.network)
    if recorded is not None:
        of = _line(report.network.profile or "an unnamed profile")
        listed = "\n\n".join(map(_line, recorded))
        lines.append(f"Written down at the export for {of}: {listed or 'no findings'}")
    tables = [Table(("rule", "verdict", "asks"), rows)] if page else []
    return Section(f"Rules of {report.profile.name}", "\n\n".join(lines), tables)


# ------------------------------------------------------------------ bits


def _cleared(report: Report) -> str:
    wrong = [row for row in report.overflow if row["uncleared"]]
    if wrong:
        return "not cleared: " + ", ".join(
            f"{len(row['uncleared'])} of {row['neurons']} neurons of layer {row['layer']} "
            f"({STATES[row['state']]})"
            for row in wrong
        )
    least = min(row["headroom_bits"] for row in report.overflow)
    return f"impossible for any input, {least:.2f} bits of head-room or more"


def _overflow(report: Report) -> Section:
    lines = [
        "A current beyond its limit wraps, a membrane saturates, and so does i of a cell. What is cleared "
        "can't, for any input."
    ]
    bound, seen = [], []
    for row in report.overflow:
        name = f"layer {row['layer']} {STATES[row['state']]}"
        ends = ["endless" if end is None else f"{end:,}" for end in (row["bound_low"], row["bound_high"])]
        cleared = f"{row['cleared']} of {row['neurons']}"
        bound.append([name, f"{row['limit']:,}", *ends, _bits(row["headroom_bits"]), cleared])
        if row["uncleared"]:
            worst = sorted(row["uncleared"], key=lambda one: -np.inf if one["bits"] is None else -one["bits"])
            lacks = [
                f"neuron {one['neuron']} ({'no end' if one['bits'] is None else _bits(one['bits'])})"
                for one in worst
            ]
            lines.append(f"Not cleared, with the bits they lack: {name}: {_few(lacks)}.")
        if report.run is not None:
            overflows = _overflows(report.run, row)
            ends = [f"{row['observed_low']:,}", f"{row['observed_high']:,}"]
            spare = [_bits(row["observed_headroom_bits"]), _bits(row["slack_bits"])]
            seen.append([name, *ends, *spare, f"{overflows:,}"])
    heads = ("for any input", "limit", "least", "most", "head-room, bits", "neurons cleared")
    tables = [Table(heads, bound)]
    if seen:
        heads = ("on the samples", "least", "most", "head-room, bits", "bound beyond, bits", "overflows")
        tables.append(Table(heads, seen))
    return Section("Overflow", "\n\n".join(lines), tables)


def _bits(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}".replace("-0.00", "0.00")


def _few(entries: Sequence[str]) -> str:
    more = f" and {len(entries) - FEW} more" if len(entries) > FEW else ""
    return ", ".join(entries[:FEW]) + more


def _remembers(row: dict[str, Any], asked_ms: float | None) -> str:
    alone = "for ever" if row["empirical_ms"] is None else f"{row['empirical_ms']:,.0f} ms"
    task = "" if asked_ms is None else f" of the task's {asked_ms:,.0f} ms"
    turns = "" if row["turns"] is None else f", passed {row['turns']:.0f} times meanwhile"
    return f"its membrane alone {alone}{task}; its longest lag {row['lag_ms']:g} ms{turns}"


def bit_depth_figure(report: Report) -> Figure:
    """Fig. 3 with the network's layers, and the task's length where it ran."""
    return bitdepth.draw(report.network, report.asked_ms)


def _bit_depth(report: Report, page: bool) -> Section:
    rows = [
        [
            str(row["layer"]),
            str(row["bits"]),
            _ms(row["tau_ms"], ".3f"),
            _ms(row["bound_ms"]),
            _ms(row["empirical_ms"]),
            "-" if row["of_task"] is None else f"{row['of_task']:.3f}",
            "-" if row["lag_ms"] is None else f"{row['lag_ms']:g}",
            "-" if row["turns"] is None else f"{row['turns']:.1f}",
        ]
        for row in report.bit_depth()
    ]
    asked = "" if report.asked_ms is None else f" The task takes {report.asked_ms:,.0f} ms."
    text = (
        "How long a membrane alone holds a trace: from the largest integer of its bits down to 0, at most "
        f"(bound) and with the rounding of each step.{asked} A spike in a delayed loop comes back after its "
        "lag, turn after turn: the membrane has to last a lag, the loop does the rest."
    )
    heads = ["layer", "bits", "tau, ms", "bound, ms", "with rounding, ms", "of the task", "longest lag, ms"]
    caption = "How long membranes remember by bits and time constant, with the layers of this network"
    drawn = [Picture(bit_depth_figure(report), caption)] if page else []
    return Section("Bit depth", text, [Table((*heads, "turns in the task"), rows)], drawn)


# ------------------------------------------------------------------ cores, cost, activity


def _placement(placed: placement.Placement, page: bool) -> Section:
    text = (
        'Neurons and synapses on cores, filled in order. "At least" is what no placement can go below: for '
        "each resource, what the network needs of it over what a core has; and what the largest layer needs."
    )
    tables = [Table(("", "value"), placed.summary()), Table(placement.COLUMNS, placed.rows())]
    if not page:
        return Section("Placement", text, tables)
    tables.append(Table(placement.MODEL_COLUMNS, placed.model_rows(), "How it is counted"))
    picture = Picture(placement.draw_placement(placed), "What each core uses of each resource")
    return Section("Placement", text, tables, [picture])


def _cost(run: Run) -> Section:
    tables = [Table(COLUMNS, run.cost.rows())]
    if run.cost.estimates:
        tables.append(Table(ESTIMATE_COLUMNS, run.cost.estimate_rows()))
    if run.cost.busiest:
        tables += [Table(COLUMNS, run.cost.busiest_rows()), Table(CORE_COLUMNS, run.cost.core_rows())]
    text = f"{run.task}: {run.cost.samples} samples of {run.cost.steps:,} steps."
    return Section("Cost of an inference", "\n\n".join([text, *run.cost.notes]), tables)


def _classes(run: Run, page: bool) -> Section:
    found = run.evaluation
    columns, rows = class_rows(found.confusion, found.names)
    drawn = []
    if page and len(found.names) <= DRAWN:
        figure = draw_classes(found.confusion, found.names)
        drawn.append(Picture(figure, "Right decisions by class"))
        figure = draw_confusion(found.confusion, found.names)
        drawn.append(Picture(figure, "Samples by label and decision"))
    return Section("Classes", f"{run.task}: {found.samples} samples.", [Table(columns, rows)], drawn)


def _activity(report: Report, run: Run) -> Section:
    drawn, lines = [], []
    if run.activity is None:
        lines.append("Not drawn: the recurrent delays are not axonal, or there are none.")
    else:
        figure = activity.draw_activity(run.activity, run.watched)
        _rasterise(figure)
        drawn.append(Picture(figure, "Spikes of one sample, by lag, and the spectrum of the spike rate"))
        try:
            figure = lattice(report.network)
            figure.set_size_inches(9.0, 6.4)
            drawn.append(Picture(figure, "The neurons on their lattice, by lag"))
        except InputError as error:
            lines.append(f"No lattice: {error}.")
    rates = " / ".join(f"{rate:.4f}" for rate in run.evaluation.spikes_per_neuron_step)
    lines.append(f"Spikes of a neuron in a step, by layer: {rates}.")
    return Section("Activity", "\n\n".join(lines), pictures=drawn)


def _rasterise(figure: Figure) -> None:
    """Tens of thousands of dots as an image inside the drawing; as shapes they take megabytes."""
    figure.set_dpi(200)
    for axes in figure.axes:
        for dots in axes.collections:
            dots.set_rasterized(True)


# ------------------------------------------------------------------ sweep


def _smallest(swept: Sweep) -> str:
    which = "none" if swept.smallest is None else str(swept.smallest.value)
    return f"smallest that keeps {100 * KEPT:.0f} %: {which}"


def sweep_figure(swept: Sweep) -> Figure:
    """Accuracy over what was swept."""
    return sweep.draw(swept.points, swept.kind, swept.chance)


def _sweep(swept: Sweep, page: bool) -> Section:
    lengths = swept.points[0].steps
    heads = [sweep.KINDS[swept.kind], *(f"right, {steps:,} steps" for steps in lengths)]
    rows = [
        [f"{point.value:,}", *(_percent(right, point.samples) for right in point.right)]
        for point in swept.points
    ]
    if swept.points[0].full_scale_exps:
        heads.append("full scales, by layer")
        for row, point in zip(rows, swept.points, strict=True):
            row.append(" / ".join(f"2^{exp}" for exp in point.full_scale_exps))
    text = (
        f"{swept.task}. Right decisions, with 95 % confidence intervals; nothing was trained again. The "
        f"{_smallest(swept)}."
    )
    drawn = [Picture(sweep_figure(swept), f"Accuracy over {sweep.KINDS[swept.kind]}")] if page else []
    return Section(f"Sweep of {swept.kind}", text, [Table(heads, rows)], drawn)


# ------------------------------------------------------------------ what a file says of itself


def _short(value: Any, deep: bool = False) -> str:
    """A value of provenance on a line."""
    if isinstance(value, dict):
        inner = ", ".join(f"{k} {_short(v, True)}" for k, v in value.items())
        return f"({inner})" if deep else inner
    if isinstance(value, list):
        if not value:
            return "none"
        plain = len(value) <= FEW and not any(isinstance(entry, (dict, list)) for entry in value)
        return " ".join(map(_short, value)) if plain else f"[{len(value)} entries]"
    return value if isinstance(value, str) else json.dumps(value)


def _line(text: str) -> str:
    """What a stranger wrote, without what moves a terminal's cursor, and not too long."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return shown if len(shown) <= LINE else shown[:LINE] + " ..."
