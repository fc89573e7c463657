"""Hardware profiles: what ships, a file of one's own, its mistakes, and the command that shows them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tomli

from delaynet_lava.cli import main
from delaynet_lava.errors import MAX_MESSAGE, InputError, InputErrors
from delaynet_lava.formats import netx
from delaynet_lava.hw_profiles import KEYS, STATUSES, load_profile, profile_names
from delaynet_lava.hw_profiles.rules import check
from delaynet_lava.network import Dense, Network, Neuron, Synapse

MINE = """
name = "mine"
title = "a chip of my own"
[limits]
delay_max = { value = 5, unit = "time step", status = "measured", source = "me" }
cores_per_chip = { value = 3, unit = "core", status = "inferred", source = "me" }
threshold_max = { unit = "1", status = "unknown", source = "not in the data sheet" }
[systems]
card = { chips = 4, status = "documented", source = "me" }
rack = { chips = 8, cores = 20, status = "documented", source = "me" }
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    return path


def call(*args: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(args))
    return int(stop.value.code or 0)


def mistakes(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_profile(path)
    message = f"{error.value.where}: {error.value.problem}; {error.value.remedy}"
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(str(error.value)) <= MAX_MESSAGE
    if isinstance(error.value, InputErrors):
        problems = error.value.problems
        told = [problem for problem in problems if problem in str(error.value)]
        more = len(problems) - len(told)
        assert told and (f"and {more} mistake" in str(error.value)) == (more > 0)
        return "; ".join(problems)
    return message


@pytest.mark.parametrize("name", ["generic", "loihi1", "loihi2"])
def test_every_shipped_profile_states_or_denies_every_limit(name):
    profile = load_profile(name)
    assert profile.name == name
    assert set(profile.limits) == set(KEYS)
    for key, limit in profile.limits.items():
        assert limit.source and limit.unit and limit.status in STATUSES
        assert (limit.value is None) == (limit.status == "unknown") == (key in profile.unknown)


def test_figures_of_the_shipped_profiles():
    assert profile_names() == ["generic", "loihi1", "loihi2"]
    one, two = load_profile("loihi1"), load_profile("loihi2")
    for profile in (one, two):
        assert [profile.get(f"weight_{k}") for k in ("min", "max", "step", "exp_max")] == [-256, 254, 2, 7]
        assert (profile.get("delay_max"), profile.get("threshold_max")) == (62, 131071)
    assert one.get("synapse_memory_per_core") * one.get("synapse_word_bits") == 128 * 1024 * 8
    assert two.get("synapse_memory_per_core") is None
    assert (one.get("neurons_per_core"), two.get("neurons_per_core")) == (1024, 8192)
    systems = {n: p.systems[n].chips for p in (one, two) for n in p.systems}
    assert systems == {
        "kapoho_bay": 2, "nahuku": 32, "pohoiki_springs": 768,
        "oheo_gulch": 1, "kapoho_point": 8, "hala_point": 1152,
    }  # fmt: skip
    assert (one.cores("kapoho_bay"), two.cores("kapoho_point")) == (256, 960)


def test_the_template_explains_every_key(repository):
    lines = (repository / "hw_profiles" / "generic.toml").read_text().splitlines()
    above = ""
    for line in lines:
        key = line.partition(" = ")[0]
        if key in KEYS:
            assert above.startswith(("#", "documented key")), key
            line = "documented key"
        above = line


def test_a_file_of_ones_own_works_wherever_a_name_does(mine, tmp_path, capsys):
    profile = load_profile(mine)
    assert (profile.get("delay_max"), profile.get("threshold_max"), profile.get("state_bits")) == (
        5,
        None,
        None,
    )
    assert "threshold_max" in profile.unknown and "state_bits" in profile.unknown
    assert (profile.cores("card"), profile.cores("rack")) == (12, 20)
    network = Network((Dense(Synapse(np.full((2, 3), 2), 6), Neuron(100, 4096, 4096)),))
    assert [f.rule for f in check(network, profile)] == ["delay-range"]

    net = tmp_path / "net.h5"
    netx.write(network, net)
    assert call("inspect", str(net), "--profile", str(mine)) == 1
    assert "delay 6 exceeds 5" in capsys.readouterr().out
    assert call("profiles", str(mine)) == 0
    assert "a chip of my own" in capsys.readouterr().out


def test_profiles_are_as_frozen_as_their_limits():
    profile = load_profile("loihi2")
    with pytest.raises(AttributeError):
        profile.name = "other"
    with pytest.raises(TypeError):
        profile.limits["delay_max"] = profile.limits["weight_max"]
    with pytest.raises(KeyError, match="delay_maximum"):
        profile.get("delay_maximum")


def test_every_mistake_is_named_at_once(tmp_path):
    message = mistakes(
        tmp_path / "bad.toml",
        """
        title = 3
        extra = 1
        [limits]
        delay_maximum = { value = 5, unit = "time step", status = "measured", source = "me" }
        delay_max = { value = 5.5, unit = "ms", status = "sure", source = "" }
        state_bits = { value = true, unit = "bit", status = "measured", source = "me" }
        time_per_step = { value = nan, unit = "us", status = "measured", source = "me" }
        weight_step = { value = 0, unit = "1", status = "measured", source = "me", note = "x" }
        weight_min = { unit = "1", status = "documented", source = "me" }
        weight_max = { value = 254, unit = "1", status = "unknown", source = "me" }
        threshold_max = 131071
        resets = { value = ["zero", "none"], unit = "1", status = "documented", source = "me" }
        neuron_kinds = { value = "lif", unit = "1", status = "documented", source = "me" }
        bias_mantissa_min = { value = 0, unit = "1", status = "documented" }
        cores_per_chip = { value = 3, unit = "core", status = "documented", source = "me" }
        cores_per_chip_usable = { value = 4, unit = "core", status = "documented", source = "me" }
        [systems]
        card = { cores = 0, status = "unknown", source = "me" }
        rack = 8
        """,
    )
    for part in (
        "'name' is missing",
        "'title' is missing or not a text",
        "unknown keys ['extra']",
        "limits: unknown keys ['delay_maximum']",
        "limits.delay_max: status is 'sure', expected one of",
        "limits.delay_max: source is missing",
        "limits.delay_max: unit is 'ms', expected 'time step'",
        "limits.delay_max: value is 5.5, expected a whole number",
        "limits.state_bits: value is True, expected a whole number",
        "limits.time_per_step: value is nan, expected a positive number",
        "limits.weight_step: unknown keys ['note']",
        "limits.weight_step: value is 0, outside 1 to 256",
        "limits.weight_min: has no value",
        "limits.weight_max: has a value although its status is unknown",
        "limits.threshold_max: is 131071, expected a table",
        "limits.resets: value is ['zero', 'none'], expected a list out of ['zero', 'subtract']",
        "limits.neuron_kinds: value is 'lif', expected a list",
        "limits.bias_mantissa_min: source is missing",
        "limits.cores_per_chip_usable: 4 exceeds cores_per_chip 3",
        "systems.card: status is 'unknown'",
        "systems.card: chips is None",
        "systems.card: cores is 0, outside",
        "systems.rack: is 8, expected a table",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name = ", "is not valid TOML"),
        ("a = " + "[" * 5000, "is not valid TOML"),
        ('name = "a"\ntitle = "b"', "[limits] is missing or empty"),
        ('name = "a"\ntitle = "b"\nsystems = 3\n[limits]', "[systems] is not a table"),
    ],
    ids=["half", "deep", "empty", "systems"],
)
def test_files_that_are_no_profiles_are_refused(tmp_path, text, problem):
    assert problem in mistakes(tmp_path / "bad.toml", text)


def test_what_is_no_profile_at_all_is_refused(tmp_path):
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not valid TOML"):
        load_profile(tmp_path / "binary.toml")
    for name in ("loihi9", tmp_path, "a\0b"):
        with pytest.raises(InputError, match="neither a profile of the package"):
            load_profile(name)


def test_the_command_lists_profiles_and_systems(capsys):
    assert call("profiles") == 0
    out = capsys.readouterr().out
    for part in ("loihi1", "loihi2", "generic", "hala_point", "140544", "256 (inferred)"):
        assert part in out
    assert call("profiles", "--json", "-") == 0
    content = json.loads(capsys.readouterr().out)
    assert sorted(content) == ["generic", "loihi1", "loihi2"]
    assert content["loihi1"]["systems"]["kapoho_bay"] == {
        "chips": 2, "cores": 256, "cores_status": "inferred", "status": "documented", "source": "press"
    }  # fmt: skip


def test_the_command_shows_everything_that_a_profile_holds(repository, capsys):
    raw = tomli.loads((repository / "hw_profiles" / "loihi2.toml").read_text())
    assert call("profiles", "loihi2") == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    for key, limit in raw["limits"].items():
        assert all(limit[part] in rows[key] for part in ("unit", "status", "source"))
        shown = limit.get("value", "-")
        assert (", ".join(shown) if isinstance(shown, list) else str(shown)) in rows[key]
    assert set(raw["systems"]) <= set(rows)
    assert rows["unknown:"] == "unknown: " + ", ".join(load_profile("loihi2").unknown)
    assert call("profiles", "loihi2", "--json", "-") == 0
    content = json.loads(capsys.readouterr().out)["loihi2"]
    assert content["limits"]["neuron_kinds"]["value"] == ["lif", "readout"]
    assert content["limits"]["axons_in_per_core"]["status"] == "unknown"
    assert "axons_in_per_core" in content["unknown"]
