"""What of Lava, SLAYER and torch is installed here, what runs, and how to get the rest."""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING

from delaynet_lava.errors import DelayNetError, InputError, one_line

if TYPE_CHECKING:
    from delaynet_lava.export.agreement import Agreement

__all__ = ["PACKAGES", "WHEELS", "Ability", "Wheel", "abilities", "install_lava", "self_test", "version"]


@dataclass(frozen=True)
class Wheel:
    """A release whose file is known; ``sha256`` is of the wheel, which is the same on every platform."""

    package: str
    version: str
    sha256: str


WHEELS = (
    Wheel("lava-nc", "0.10.0", "d646723e888a72868dac77d31beee3eef1f540366a8c1a8578a2dc3302470926"),
    Wheel("lava-dl", "0.6.0", "bcb448f2bb85dc0da4b4dbbbae16543d2a978c1da7279acc522ad621fc68c437"),
)
"""Intel's last releases, for which :mod:`delaynet_lava.lava_compat` was written."""

PYTHONS = ((3, 10), (3, 13))
"""First and last Python that Lava was run on with this package."""

PACKAGES = (
    "delaynet_lava", "lava-nc", "lava-dl", "torch", "numpy", "scipy", "networkx", "asteval", "scikit-learn",
    "numba", "h5py", "triton", "torchvision", "opencv-python-headless",
)  # fmt: skip
"""What ``delaynet doctor`` lists."""

SETUP = "delaynet setup-lava"


def version(package: str) -> str | None:
    """Installed version of a distribution; None: not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _has_pip() -> bool:
    # Not asked by find_spec: setuptools has a hook there that warns of whatever distutils was imported.
    return any(metadata.distributions(name="pip"))


def _requirements() -> list[str]:
    """What Lava imports, from this package's own extra, without Lava itself."""
    names = {wheel.package for wheel in WHEELS}
    lines = [line.partition(";") for line in metadata.requires("delaynet_lava") or ()]
    of_extra = [line.strip() for line, _, marker in lines if 'extra == "lava"' in marker.replace("'", '"')]
    return [line for line in of_extra if not any(line.startswith(name) for name in names)]


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    try:
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError as error:
        raise InputError(sys.executable, f"cannot be started ({error})") from error
    if result.returncode:
        said = [line for line in result.stderr.splitlines() if line.strip()] or ["no reason given"]
        errors = [line for line in said if line.startswith("ERROR")] or said
        raise InputError("pip", f"failed: {errors[0]}", f"run it by hand: {' '.join(command)}")


def install_lava() -> list[str]:
    """Install lava-nc and lava-dl into this environment, with what they import and nothing else.

    pip refuses both for their metadata on every Python but 3.10; they are installed without their
    dependencies, which would bring OpenCV, torchvision and torch 2.3 with CUDA. pip compares the files
    with :data:`WHEELS`.

    Returns:
        What was installed; empty where both were there.

    Raises:
        InputError: a Python that Lava was not tried on, no pip, or pip failed.
    """
    first, last = PYTHONS
    if not first <= sys.version_info[:2] <= last:
        raise InputError(
            f"Python {platform.python_version()}",
            f"Lava was run on {first[0]}.{first[1]} to {last[0]}.{last[1]} only",
            "use one of these",
        )
    missing = [wheel for wheel in WHEELS if version(wheel.package) != wheel.version]
    if not missing:
        return []
    if not _has_pip():
        raise InputError(sys.executable, "has no pip", f"{sys.executable} -m ensurepip")
    _pip("--prefer-binary", *_requirements())
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "lava.txt")
        wanted.write_text("".join(f"{w.package}=={w.version} --hash=sha256:{w.sha256}\n" for w in missing))
        _pip("--no-deps", "--ignore-requires-python", "--only-binary", ":all:", "-r", str(wanted))
    return [f"{wheel.package} {wheel.version}" for wheel in missing]


@dataclass(frozen=True)
class Ability:
    """Something that this package can do on some machines.

    Attributes:
        what: in a few words. works: here. detail: how, or why not. remedy: the line that gets it, or "".
    """

    what: str
    works: bool
    detail: str
    remedy: str = ""


def _emulator() -> str:
    import_module("delaynet_lava.emulator")
    return "any network, any batch"


def _training() -> str:
    import_module("delaynet_lava.nn.recurrent")
    import torch

    return f"torch {torch.__version__}"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        raise ImportError(f"torch {torch.__version__} finds none")
    import_module("triton")
    return torch.cuda.get_device_name()


def _slayer() -> str:
    from delaynet_lava.nn import slayer

    slayer.block  # noqa: B018  (imports it)
    return f"lava-dl {version('lava-dl')}"


def _lava() -> str:
    import_module("delaynet_lava.lava")
    return f"lava-nc {version('lava-nc')}, fixed point on CPUs"


def _netx() -> str:
    import_module("delaynet_lava.lava.network")
    return "drop-in for lava.lib.dl.netx.hdf5.Network"


def _detection() -> str:
    import cv2  # noqa: F401
    import torchvision

    return f"torchvision {torchvision.__version__}"


def _board() -> str:
    from lava.utils.loihi import is_installed

    if not is_installed():
        raise ImportError("Intel's closed package lava-loihi is not installed")
    return "lava-loihi"


# What is tried, by importing it as a user's program would, and the line that gets it where it is missing.
_TRIALS: tuple[tuple[str, Callable[[], str], str], ...] = (
    ("emulator", _emulator, ""),
    ("training", _training, "pip install torch"),
    ("training on a GPU", _gpu, "a build of torch with CUDA, and pip install triton"),
    ("SLAYER's blocks", _slayer, SETUP),
    ("Lava's simulator", _lava, SETUP),
    ("lava.Network", _netx, SETUP),
    ("SLAYER's object detection", _detection, "pip install opencv-python-headless torchvision"),
    (
        "Loihi 2",
        _board,
        "members of INRC get lava-loihi from Intel; delaynet deploy runs it there",
    ),
)
REQUIRED = ("emulator", "training", "SLAYER's blocks", "Lava's simulator", "lava.Network")
"""Abilities without which ``delaynet doctor`` says no; the others want hardware or a wish."""


def abilities() -> Iterator[Ability]:
    """What works here, one after the other; each is tried by importing it."""
    for what, attempt, remedy in _TRIALS:
        try:
            yield Ability(what, True, attempt())
        except DelayNetError as error:
            yield Ability(what, False, str(error).partition(";")[0], remedy)
        except Exception as error:  # a broken package may raise anything
            yield Ability(what, False, one_line(str(error), 200) or type(error).__name__, remedy)


def self_test(samples: int = 2) -> Agreement:
    """A network with delays in SLAYER's forward pass, in the emulator and on Lava, integer by integer.

    Raises:
        BackendMissing: SLAYER or Lava can't be imported.
    """
    import torch

    from delaynet_lava import check, task
    from delaynet_lava.nn import DelayRecurrent, Readout, delay_groups, slayer

    neuron = {"threshold": 1.0, "current_decay": 0.5, "voltage_decay": 0.04}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = torch.nn.Sequential(
            slayer.block.Dense(neuron, 40, 24, weight_scale=4, weight_norm=True),
            DelayRecurrent(neuron, 24, 32, delay_groups(32, (0, 7, 62)), weight_scale=3),
            Readout({"current_decay": 1.0, "voltage_decay": 0.05}, 32, 2, weight_scale=3),
        )
    return check(model, task("cue:cues=2,wait_ms=150"), samples, samples)
