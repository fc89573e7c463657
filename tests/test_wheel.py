"""What is packed into the wheel, and that it works where nothing but the wheel is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from delaynet_lava._version import __version__

# Where each folder of the source tree stands in the installed package.
INSTALLED_AS = {
    "delaynet_lava": "delaynet_lava",
    "export": "delaynet_lava/export",
    "hw_profiles": "delaynet_lava/hw_profiles",
}


ADDRESS = "https://forge.example/people/delaynet_lava"


def run(*command: str | Path, cwd: Path) -> str:
    """Runs a command without the environment of the tests; its output, or a failure that shows it."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    variables.pop("VIRTUAL_ENV", None)
    variables["VENV"] = sys.prefix  # for the scripts below .ci
    result = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
    )
    assert result.returncode == 0, f"{command}: exit code {result.returncode}\n{result.stdout}"
    return result.stdout


def copy_sources(repository: Path, target: Path) -> Path:
    """Only what a wheel is made of: an earlier build/ in the checkout would leave old modules in it."""
    target.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, target)
    for name in INSTALLED_AS:
        shutil.copytree(repository / name, target / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    return target


def build(sources: Path) -> Path:
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", ".", cwd=sources)
    (wheel,) = (sources / "dist").glob("*.whl")
    return wheel


def expected_content(sources: Path) -> set[str]:
    return {
        f"{installed}/{path.relative_to(sources / folder).as_posix()}"
        for folder, installed in INSTALLED_AS.items()
        for path in (sources / folder).rglob("*")
        if path.is_file()
    }


def content(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def sources(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_sources(repository, tmp_path_factory.mktemp("wheel") / "sources")


@pytest.fixture(scope="module")
def dist(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of wheel and sdist, the wheel made from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run("bash", repository / ".ci" / "dist", folder, ADDRESS, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (wheel,) = dist.glob("*.whl")
    return wheel


def test_the_wheel_holds_every_file_of_the_package(wheel: Path, repository: Path, tmp_path: Path) -> None:
    expected = expected_content(copy_sources(repository, tmp_path / "untouched"))
    assert content(wheel) == expected
    assert {f"delaynet_lava/hw_profiles/{name}.toml" for name in ("loihi1", "loihi2")} <= expected


def test_a_package_left_out_of_the_list_is_noticed(sources: Path, tmp_path: Path) -> None:
    shutil.copytree(sources, tmp_path / "more", ignore=shutil.ignore_patterns("build", "dist", "*.egg-info"))
    forgotten = tmp_path / "more" / "delaynet_lava" / "forgotten" / "__init__.py"
    forgotten.parent.mkdir()
    forgotten.touch()
    expected = expected_content(tmp_path / "more")
    assert expected - content(build(tmp_path / "more")) == {"delaynet_lava/forgotten/__init__.py"}


def test_the_wheel_names_both_commands_and_carries_the_licence(wheel: Path, repository: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entry_points,) = (name for name in archive.namelist() if name.endswith("/entry_points.txt"))
        commands = archive.read(entry_points).decode().splitlines()
        (licence,) = (name for name in archive.namelist() if name.endswith("/LICENSE"))
        assert archive.read(licence) == (repository / "LICENSE").read_bytes()
    assert {line.partition(" ")[0] for line in commands if "=" in line} == {"delaynet", "delaynet-export"}


def test_the_sdist_holds_what_the_tests_read(dist: Path, repository: Path) -> None:
    made = ("__pycache__", ".ruff_cache", ".pytest_cache", ".ipynb_checkpoints")
    folders = ("delaynet_lava", "export", "hw_profiles", "tests", "examples", "docs", ".ci", ".github")
    files = [path for folder in folders for path in (repository / folder).rglob("*") if path.is_file()]
    expected = {path.relative_to(repository).as_posix() for path in files if not {*path.parts} & {*made}}
    expected -= {"docs/reference/commands.md"}
    expected |= {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "MANIFEST.in",
        "Makefile",
        "CHANGELOG.md",
        "mkdocs.yml",
    }
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        found = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert expected - found == set()


def links(readme: str) -> set[str]:
    """Where its links and pictures lead."""
    return set(re.findall(r"\]\(([^)\s]+)\)", readme))


def test_the_readme_has_no_dead_link_here_nor_on_an_index(wheel: Path, repository: Path) -> None:
    for link in links((repository / "README.md").read_text()):
        if not link.startswith("https://"):
            page, _, anchor = link.partition("#")
            assert (repository / page).exists(), link
            heads = re.findall(r"^#+ (.*)$", (repository / page).read_text(), re.M) if anchor else []
            assert not anchor or anchor in [re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in heads]
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        head, _, readme = archive.read(name).decode().partition("\n\n")
    assert f"Version: {__version__}\n" in head and f"Project-URL: Homepage, {ADDRESS}\n" in head
    assert "Classifier: Typing :: Typed\n" in head
    assert links(readme) and all(link.startswith("https://") for link in links(readme))
    assert f"{ADDRESS}/blob/v{__version__}/docs/engine.md" in links(readme)


@pytest.mark.slow
def test_all_tests_are_found_in_an_unpacked_sdist(dist: Path, tmp_path: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    shutil.unpack_archive(sdist, tmp_path)
    (tree,) = tmp_path.iterdir()
    said = run(sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:randomly", cwd=tree)
    assert re.search(r"\d{4}/\d{4} tests collected", said), said[-500:]


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Iterator[Path]:
    """An environment that held nothing before the wheel and its dependencies were installed; its folder."""
    base = Path(sys.base_prefix, "bin", "python{}.{}".format(*sys.version_info))
    venv = tmp_path / "venv"
    run(base, "-m", "venv", venv, cwd=tmp_path)
    run(venv / "bin" / "python", "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    yield venv
    shutil.rmtree(venv)


@pytest.mark.slow
def test_the_wheel_works_on_its_own(installed: Path, repository: Path, tmp_path: Path) -> None:
    where = "import delaynet_lava, sys; print(delaynet_lava.__file__, *sys.path, sep='\\n')"
    place, *search = run(installed / "bin" / "python", "-c", where, cwd=tmp_path).splitlines()
    assert Path(place).is_relative_to(installed)
    assert not any(Path(entry).is_relative_to(repository) for entry in search if entry)

    profiles = run(installed / "bin" / "delaynet", "profiles", cwd=tmp_path)
    assert "loihi1" in profiles and "loihi2" in profiles

    shutil.copy(repository / "delaynet_lava" / "models" / "cue_loihi2.pt", tmp_path / "model.pt")
    run(installed / "bin" / "delaynet-export", "model.pt", "-o", "net.h5", cwd=tmp_path)
    assert "all kept" in run(installed / "bin" / "delaynet", "inspect", "net.h5", cwd=tmp_path)
    options = ("--task", "cue", "--samples", "4", "--backend", "emulator")
    assert "accuracy" in run(installed / "bin" / "delaynet", "run", "net.h5", *options, cwd=tmp_path).lower()


@pytest.mark.slow
def test_the_quick_road_on_python_3_12_without_lava(repository: Path) -> None:
    """From the wheel alone: train, export, emulate, inspect, as commands; .ci/run takes the same road."""
    said = run("bash", repository / ".ci" / "quick-road", "3.12", cwd=repository)
    assert "the quick road holds on Python 3.12" in said
