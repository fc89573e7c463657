"""``delaynet inspect``: every figure is that of the function it comes from, and nothing is passed over."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from delaynet_lava.analysis import overflow
from delaynet_lava.analysis.bitdepth import layer_memory
from delaynet_lava.analysis.cost import cost
from delaynet_lava.analysis.report import Sweep, gather, lattice
from delaynet_lava.analysis.report_sections import sections, verdict
from delaynet_lava.analysis.sweep import KINDS, sweep
from delaynet_lava.cli import main
from delaynet_lava.emulator import extremes
from delaynet_lava.errors import InputError
from delaynet_lava.evaluation import evaluate
from delaynet_lava.formats import netx
from delaynet_lava.hw_profiles import load_profile
from delaynet_lava.hw_profiles.placement import place
from delaynet_lava.hw_profiles.rules import check
from delaynet_lava.network import Dense, Network, Neuron, Synapse
from delaynet_lava.nn.lattice import lattice_delays
from delaynet_lava.tasks.cue import CueAccumulation

SHORT = ["--samples", "5", "--seed", "3", "--task", "cue:cues=1,wait_ms=150"]
TASK = CueAccumulation(1, 150, 3)


def cue_network(neurons: int = 27, delays: tuple[int, ...] = (0, 5, 9), **more) -> Network:
    """A random network of the cue task's size that fires; delays on the lattice of seed 3."""
    rng = np.random.default_rng(1)
    weight = 2 * rng.integers(-10, 30, (neurons, 40))
    back = 2 * rng.integers(-4, 5, (neurons, neurons))
    delay = np.tile(lattice_delays(neurons, delays, 3), (neurons, 1))
    hidden = Dense(Synapse(weight), Neuron(100, 4096, 200), Synapse(back, delay))
    readout = Dense(Synapse(2 * rng.integers(-9, 10, (2, neurons))), Neuron(131071, 4096, 100))
    made = {"command": "train", "seed": 3, "options": {"delays": list(delays)}, "history": [{}] * 9}
    return Network((hidden, readout), **({"provenance": made} | more))


def saved(network: Network, folder: Path, name: str = "net.h5") -> str:
    netx.write(network, folder / name)
    return str(folder / name)


def call(*args: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["inspect", *args])
    return int(stop.value.code or 0)


def report_of(capsys, *args: str, code: int = 0) -> dict:
    capsys.readouterr()
    assert call(*args, "--json", "-") == code
    return json.loads(capsys.readouterr().out)


def printed(capsys, *args: str, code: int = 0) -> str:
    capsys.readouterr()
    assert call(*args) == code
    return capsys.readouterr().out


def refused(capsys, *args: str) -> str:
    capsys.readouterr()
    assert call(*args) == 2
    streams = capsys.readouterr()
    assert streams.out == "" and len(streams.err.splitlines()) == 1, streams
    return streams.err


def plain(value):
    """As JSON gives it back."""
    return json.loads(json.dumps(value))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Network, dict, str, Path]:
    """A network, its report, the page and the folder of one run."""
    folder = tmp_path_factory.mktemp("inspect")
    net = saved(cue_network(), folder)
    files = [["--json", str(folder / "r.json")], ["--html", str(folder / "r.html")]]
    assert call(net, *SHORT, *files[0], *files[1], "--plot", str(folder / "p.svg")) == 0
    report = json.loads((folder / "r.json").read_text())
    return netx.read(net), report, (folder / "r.html").read_text(), folder


def test_every_figure_is_that_of_its_own_function(whole):
    network, report, _, _ = whole
    chip = load_profile("loihi2")
    inputs, labels = TASK.batch("test", 0, 5)
    assert report["findings"] == [vars(f) for f in check(network, chip)] == []
    assert report["overflow"] == plain(overflow.report(network, extremes(network, inputs)))
    assert report["placement"] == plain(place(network, chip).as_dict())
    assert report["cost"] == plain(cost(network, inputs, chip, placed=place(network, chip)).as_dict())
    ran = evaluate(network, TASK, 5)
    for name in ("accuracy", "decisions", "steps", "spikes", "u_wraps", "v_saturations"):
        assert report["run"][name] == plain(ran.as_dict()[name]), name
    assert report["run"]["labels"] == labels.tolist()
    assert report["run"]["spikes"][0] > 0
    assert report["left_out"] == [] and report["sweep"] is None
    # Other samples are told apart.
    others, _ = CueAccumulation(1, 150, 4).batch("test", 0, 5)
    assert report["cost"] != plain(cost(network, others, chip, placed=place(network, chip)).as_dict())
    assert report["overflow"] != plain(overflow.report(network, extremes(network, others)))


def test_membranes_are_held_against_the_task_and_the_loop(whole):
    network, report, _, _ = whole
    depth = report["bit_depth"]
    assert depth["asked_ms"] == TASK.steps == 300
    for row, memory in zip(depth["layers"], layer_memory(network), strict=True):
        assert row["empirical_ms"] == memory.empirical_ms and row["bound_ms"] == memory.bound_ms
        assert row["of_task"] == memory.empirical_ms / 300
    assert (depth["layers"][0]["lag_ms"], depth["layers"][0]["turns"]) == (10.0, 30.0)
    assert depth["layers"][1]["lag_ms"] is None
    slow = network.with_(dt_ms=2.0)
    assert [m.tau_ms for m in layer_memory(slow)] == [2 * m.tau_ms for m in layer_memory(network)]


def test_the_terminal_shows_the_figures_of_the_file(whole, capsys):
    _, report, _, folder = whole
    out = printed(capsys, str(folder / "net.h5"), *SHORT)
    table = {line.split("  ")[0]: line for line in out.splitlines()}
    for row, name in zip(report["overflow"], ("current u", "membrane v") * 2, strict=True):
        line = next(ln for ln in out.splitlines() if ln.startswith(f"layer {row['layer']} {name}"))
        assert f"{row['bound_low']:,}" in line and f"{row['headroom_bits']:.2f}" in line
    for count in report["cost"]["counts"]:
        assert f"{count['mean']:,.1f}" in table[count["name"]]
    assert "27x27" in table["layer 0 weight_rec"] and "0 5 9" in table["layer 0 weight_rec"]
    assert f"{report['run']['right']} of 5" in table["right"]
    assert "All rules of loihi2 are kept." in out
    assert "[9 entries]" in table["history"] and "delays 0 5 9" in table["options"]
    assert all(line == line.rstrip() for line in out.splitlines())


def test_the_page_holds_everything_and_fetches_nothing(whole):
    _, report, page, folder = whole
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles == [
        "At a glance", "Layers and synapses", "Rules of loihi2", "Overflow", "Bit depth", "Placement",
        "Classes", "Cost of an inference", "Activity", "Provenance",
    ]  # fmt: skip
    assert len(re.findall("<img ", page)) == 6  # bit depth, placement, classes (2), activity, lattice
    assert f"<h1>{folder / 'net.h5'}</h1>" in page
    assert '<p class="verdict good"><strong>Kept</strong>all rules of loihi2</p>' in page
    assert "and no placement does with fewer" in page
    links = re.findall(r'\b(?:src|srcset|href|data|action)="([^"]*)"', page)
    assert links and all(link.startswith(("data:image/", "#")) for link in links)
    assert "url(" not in page and "<script" not in page and "<link" not in page
    for row in report["overflow"]:
        assert f"{row['bound_high']:,}" in page and f"{row['observed_high']:,}" in page
    assert (folder / "p.svg").read_bytes().startswith(b"<?xml")


def test_a_network_of_no_known_task_gets_everything_that_needs_no_run(tmp_path, capsys):
    synapse = Synapse(np.full((3, 7), 2))
    net = saved(Network((Dense(synapse, Neuron(131071, 4096, 100)),)), tmp_path)
    network, page = netx.read(net), tmp_path / "r.html"
    report = report_of(capsys, net, "--html", str(page))
    assert report["run"] is report["cost"] is report["bit_depth"]["asked_ms"] is None
    assert report["overflow"] == plain(overflow.report(network))
    assert report["placement"] == plain(place(network, load_profile("loihi2")).as_dict())
    (line,) = report["left_out"]
    assert "accuracy, observed extremes, cost and activity" in line and "does not say what task" in line
    assert line in page.read_text() and "Cost of an inference" not in page.read_text()
    assert line in printed(capsys, net)
    assert "takes 7 inputs" in refused(capsys, net, "--task", "cue")
    assert "there is nothing to run" in refused(capsys, net, "--sweep", "weight-bits")


def test_a_network_of_another_task_is_not_run_unless_one_asks(tmp_path, capsys):
    net = saved(cue_network(task={"name": "shd"}), tmp_path)
    report = report_of(capsys, net)
    assert report["run"] is None and "'shd' is not known" in report["left_out"][0]
    assert report_of(capsys, net, "--task", "cue", *SHORT)["run"]["samples"] == 5


def test_a_broken_rule_is_exit_code_1_and_all_findings_are_shown(tmp_path, capsys):
    network = cue_network(delays=(0, 80, 99))
    hidden, readout = network.layers
    soft = replace(hidden, neuron=replace(hidden.neuron, reset="subtract"))
    net = saved(network.with_(layers=(soft, readout)), tmp_path)
    out = printed(capsys, net, *SHORT, code=1)
    assert "2 broken, 0 warnings" in out
    for text in ("error [delay-range] layer 0: delay_rec: delay 99 exceeds 62", "error [reset-kind]"):
        assert text in out
    # What the rules allow on another chip is none of its findings.
    mine = tmp_path / "mine.toml"
    entry = '{ value = 8, unit = "bit", status = "documented", source = "a test" }'
    mine.write_text(f'name = "mine"\ntitle = "narrow sums"\n[limits]\nsynaptic_sum_bits = {entry}\n')
    report = report_of(capsys, net, *SHORT, "--profile", str(mine))
    assert {f["severity"] for f in report["findings"]} == {"warning"}


def test_the_verdict_names_the_rule_and_what_overflowed():
    heavy = Dense(Synapse(np.full((12, 40), 254), 0, 7), Neuron(4000, 100, 50))
    readout = Dense(Synapse(np.full((2, 12), 2)), Neuron(131071, 4096, 50))
    chip, of = load_profile("loihi2"), CueAccumulation(1, 150)
    said = verdict(gather(Network((heavy, readout)), chip, of, "cue", 2))
    assert (said.kind, said.word) == ("warn", "Overflow")
    assert said.text.startswith(
        "on the samples current u of layer 0 wrapped, membrane v of layer 0 saturated"
    )
    soft = replace(heavy, neuron=replace(heavy.neuron, reset="subtract"))
    said = verdict(gather(Network((soft, readout)), chip, of, "cue", 2))
    assert (said.kind, said.word) == ("bad", "Broken")
    assert said.text.startswith("a rule of loihi2: reset-kind, layer 0: reset: 'subtract' is not one of")
    assert "On the samples current u of layer 0 wrapped" in said.text
    assert verdict(gather(Network((soft, readout)), chip)).text.endswith("['zero']")
    narrow = replace(
        heavy,
        synapse=Synapse(np.full((12, 40), 2)),
        neuron=Neuron(20, 4096, 50, membrane_bits=6, full_scale_exp=8),
    )
    report = gather(Network((narrow, readout)), load_profile("generic"), of, "cue", 2)
    assert report.run.evaluation.v_saturations[0] > 0
    assert "membrane-width" in verdict(report).text and "saturated" not in verdict(report).text
    rules = next(
        part for part in sections(gather(Network((soft, readout)), chip)) if part.title.startswith("Rules")
    )
    rows = {row[0]: row[1] for row in rules.tables[0].rows}
    assert (rows["reset-kind"], rows["synaptic-sum"], rows["weight-range"]) == ("broken", "warning", "kept")


def test_a_neuron_too_large_for_a_core_leaves_the_placement_out(tmp_path, capsys):
    mine = tmp_path / "mine.toml"
    entry = '{ value = 20, unit = "axon", status = "documented", source = "a test" }'
    mine.write_text(f'name = "mine"\ntitle = "few axons"\n[limits]\naxons_in_per_core = {entry}\n')
    report = report_of(capsys, saved(cue_network(), tmp_path), *SHORT, "--profile", str(mine), code=1)
    assert report["placement"] is None
    assert report["left_out"][0].startswith("placement: layer 1: neuron 0: takes 24 of axons in")
    assert report["run"] is not None and report["findings"][0]["rule"] == "fan-in"


def test_what_may_overflow_is_named_with_the_bits_it_lacks(tmp_path, capsys):
    heavy = np.zeros((12, 40), int)
    heavy[:11] = 254
    endless = Dense(Synapse(heavy, 0, 7), Neuron(131071, 0, 100))
    wraps = Dense(Synapse(np.full((2, 12), 2)), Neuron(131071, 4096, 0))
    net = saved(Network((endless, wraps)), tmp_path)
    report = report_of(capsys, net, *SHORT, code=1)  # no chip's current lasts for ever
    first = report["overflow"][0]
    assert first["bound_high"] is None and len(first["uncleared"]) == 11
    out = printed(capsys, net, *SHORT, code=1)
    assert "not cleared: 11 of 12 neurons of layer 0 (current u)" in out
    assert "neuron 7 (no end) and 3 more" in out
    observed = next(ln for ln in out.split("on the samples")[1].splitlines() if "layer 0 current u" in ln)
    assert f"{report['run']['u_wraps'][0]:,}" == observed.split()[-1] != "0"


def test_what_a_stranger_wrote_is_shown_as_text(tmp_path, capsys):
    odd = {"command": "[/red] \x1b[2J <b>", "export": {"findings": ["[bold]", {"rule": "a"}, 3]}}
    net = saved(cue_network(provenance=odd), tmp_path)
    out = printed(capsys, net, *SHORT)
    assert "[/red]  [2J <b>" in out and "\x1b" not in out
    assert "Written down at the export for an unnamed profile: [bold]" in out
    assert report_of(capsys, net, *SHORT)["provenance"] == odd


def test_findings_written_down_at_the_export_are_repeated(tmp_path, capsys):
    entry = {"rule": "decay", "severity": "warning", "where": "layer 0", "problem": "odd", "remedy": ""}
    net = saved(cue_network(profile="old", provenance={"export": {"findings": [entry]}}), tmp_path)
    out = printed(capsys, net, *SHORT)
    assert "Written down at the export for old: warning [decay] layer 0: odd" in out


@pytest.fixture
def drawn(monkeypatch) -> dict[str, list[str]]:
    """File -> labels below the panels, of what the command draws; nothing is written."""
    labels: dict[str, list[str]] = {}

    def note(figure, path):
        labels[path] = [axes.get_xlabel() for axes in figure.axes]

    monkeypatch.setattr("delaynet_lava.pictures.write", note)
    return labels


@pytest.mark.parametrize("kind", KINDS)
def test_a_sweep_is_that_of_its_own_function(kind, tmp_path, capsys, drawn):
    net = saved(cue_network(), tmp_path)
    small = ["--samples", "2", "--seed", "3", "--task", "cue:cues=1,wait_ms=160"]
    report = report_of(capsys, net, *small, "--sweep", kind, "--plot", "sweep.png")
    tasks = [CueAccumulation(1, wait, 3) for wait in (160, 150, 480)]
    points = sweep(netx.read(net), kind, tasks, 2)
    assert report["sweep"]["points"] == plain([point.as_dict() for point in points])
    assert report["sweep"]["kind"] == kind and report["sweep"]["chance"] == 0.5
    assert drawn == {"sweep.png": [KINDS[kind], "steps of a sample"]}


def test_a_sweep_is_on_the_page_and_in_the_terminal(whole):
    network = whole[0]
    points = tuple(sweep(network, "delay-max", [TASK], 2, values=[9, 4]))
    report = gather(network, load_profile("loihi2"))
    for page in (True, False):
        last = sections(replace(report, sweep=Sweep("delay-max", points, "cue", 0.5)), page)[-2]
        assert [row[0] for row in last.tables[0].rows] == ["9", "4"]
        assert [len(last.pictures), last.title] == [int(page), "Sweep of delay-max"]


def test_one_picture_is_written_bit_depth_unless_something_was_swept(tmp_path, capsys, drawn):
    net = saved(cue_network(), tmp_path)
    small = [net, "--samples", "1", "--task", "cue:cues=1,wait_ms=150"]
    printed(capsys, *small)
    assert drawn == {}
    printed(capsys, *small, "--bit-depth")
    printed(capsys, *small, "--plot", "a.svg")
    printed(capsys, *small, "--bit-depth", "--plot", "b.svg", "--sweep", "weight-bits")
    assert list(drawn) == ["bit-depth.png", "a.svg", "b.svg"]
    assert {tuple(labels) for labels in drawn.values()} == {
        ("bits of the largest integer (a signed word has one more)",)
    }


def test_a_lattice_that_the_delays_do_not_follow_is_not_drawn():
    network = cue_network()
    assert len(lattice(network).axes[0].collections) == 3
    other = network.with_(provenance={"seed": 4})
    with pytest.raises(InputError, match="do not follow the lattice"):
        lattice(other)
    for one, pictures in ((network, 2), (other, 1)):
        made = sections(gather(one, load_profile("loihi2"), TASK, "cue", 2))
        (activity,) = [section for section in made if section.title == "Activity"]
        assert len(activity.pictures) == pictures
        assert ("No lattice: " in activity.text) == (pictures == 1)


def test_bad_use_is_one_line(tmp_path, capsys):
    net = saved(cue_network(), tmp_path)
    assert "'spikes' is not known; choose from: membrane-bits" in refused(capsys, net, "--sweep", "spikes")
    assert "--samples: 0 is below 1" in refused(capsys, net, "--samples", "0")
    assert "'queue' is not known" in refused(capsys, net, "--task", "queue")
    assert "149 ms is below 150 ms" in refused(capsys, net, "--task", "cue:wait_ms=149")
    assert "ends in '.gif'" in refused(capsys, net, "--plot", "p.gif")
    assert "neither a profile" in refused(capsys, net, "--profile", "loihi9")
    assert "does not exist" in refused(capsys, str(tmp_path / "none.h5"))
    assert not list(tmp_path.glob("*.html"))
