"""The model that the repository ships: accuracy on fresh samples, and Lava bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import delaynet_lava
from delaynet_lava.analysis.overflow import bounds
from delaynet_lava.cli import main
from delaynet_lava.evaluation import evaluate
from delaynet_lava.export import export_netx
from delaynet_lava.formats.model_file import load_model
from delaynet_lava.tasks.cue import CueAccumulation


@pytest.fixture(scope="module")
def model(repository: Path) -> Path:
    return repository / "delaynet_lava" / "models" / "cue_loihi2.pt"


@pytest.fixture(scope="module")
def network(model: Path, tmp_path_factory: pytest.TempPathFactory) -> delaynet_lava.Network:
    path = tmp_path_factory.mktemp("shipped") / "net.h5"
    report = export_netx(model, path, profile="loihi2")
    assert report.findings == []
    return delaynet_lava.load(path)


def test_99_and_a_half_percent_on_2048_fresh_samples(network):
    result = evaluate(network, CueAccumulation(seed=2026), 2048)
    assert result.accuracy >= 0.995
    assert result.u_wraps == [0, 0]
    assert result.v_saturations == [0, 0]
    assert result.spikes[1] == 0


def test_the_first_8_samples_on_lava_have_0_mismatches(network):
    pytest.importorskip("lava.magma", reason="lava-nc is not installed")
    result = evaluate(network, CueAccumulation(seed=2026), 8, "lava", "emulator")
    assert result.comparison.mismatches == 0
    # Spikes and membranes of 127 neurons at 2250 steps of 8 samples, and the totals.
    assert result.comparison.compared > 2 * 127 * 2250 * 8
    assert result.spikes[0] > 1000


def test_the_model_says_how_it_was_made(model):
    provenance = load_model(model).provenance
    assert provenance["command"].startswith("delaynet train cue ")
    assert {"torch", "lava-dl", "numpy", "delaynet_lava"} <= set(provenance["versions"])
    assert provenance["metrics"]["validation_accuracy"] > 0.97
    assert "/" not in provenance["command"]


def test_the_papers_network_runs_in_the_emulator_and_breaks_the_chips_rules(model, tmp_path):
    report = export_netx(model.with_name("cue_paper.pt"), tmp_path / "paper.h5", force=True)
    assert {finding.rule for finding in report.findings} == {"delay-range", "reset-kind"}
    result = evaluate(report.network, CueAccumulation(seed=2026), 512)
    assert result.accuracy >= 0.96
    assert result.u_wraps == result.v_saturations == [0, 0]


def test_a_narrow_membrane_clips_without_a_warning(model, tmp_path, capsys):
    """Six bits: legal on no chip, run by the emulator; the full scale is chosen to clip."""
    path = tmp_path / "six.h5"
    report = export_netx(model.with_name("cue_6bit.pt"), path, force=True)
    assert {finding.rule for finding in report.findings} == {"membrane-width"}
    assert [layer.neuron.membrane_bits for layer in report.network.layers] == [6, 6]
    with pytest.raises(SystemExit) as stop:
        main(["run", str(path), "--samples", "16", "--json", "-"])
    assert stop.value.code == 0
    streams = capsys.readouterr()
    figures = json.loads(streams.out)
    assert figures["accuracy"] >= 0.8
    assert sum(figures["v_saturations"]) > 0
    assert "saturated" not in streams.err


def test_cells_with_delays_remember(model, tmp_path):
    report = export_netx(model.with_name("cue_src.pt"), tmp_path / "src.h5", profile="loihi2")
    # All that stands against them: nobody has written the cell for a chip.
    assert [(finding.rule, finding.severity) for finding in report.findings] == [("microcode", "warning")]
    result = evaluate(report.network, CueAccumulation(seed=2026), 512)
    assert result.accuracy >= 0.96 and result.u_wraps == [0, 0]


def test_the_network_of_permuted_mnist_keeps_every_rule_and_cannot_overflow(model, tmp_path):
    report = export_netx(model.with_name("psmnist.pt"), tmp_path / "net.h5", profile="loihi2")
    assert report.findings == [] and report.network.layers[0].size == 216
    assert not any(bound.wraps.any() or bound.saturates.any() for bound in bounds(report.network))


@pytest.mark.slow
def test_permuted_mnist_is_as_often_right_as_its_page_says(model, tmp_path):
    from mnist_files import mnist_folder

    report = export_netx(model.with_name("psmnist.pt"), tmp_path / "net.h5", profile="loihi2")
    source = delaynet_lava.task(f"psmnist:root={mnist_folder()},bits=5")
    result = evaluate(report.network, source, 10000)
    assert result.accuracy == 0.9504
    assert not sum(result.u_wraps) and not sum(result.v_saturations)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("mnist_src", 0.973), ("mnist_lif", 0.975)])
def test_mnist_models_are_as_often_right_as_their_page_says(model, tmp_path, name, least):
    from mnist_files import mnist_folder

    report = export_netx(model.with_name(f"{name}.pt"), tmp_path / "net.h5", profile="generic")
    source = delaynet_lava.task(f"mnist:root={mnist_folder()},length=55", seed=2026)
    result = evaluate(report.network, source, 10000)
    assert result.accuracy >= least
    assert not sum(result.u_wraps) and not sum(result.v_saturations)
