"""Settings and fixtures that every test shares."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch or Numba are loaded: as the commands do, see delaynet_lava/cli/__init__.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# pytest-xdist tells its processes a width; commands would take it for that of a terminal.
os.environ.pop("COLUMNS", None)

import pytest
from hypothesis import settings

import delaynet_lava  # noqa: F401  (before a test imports Lava: on Python 3.11 and later that mends it)

ROOT = Path(__file__).resolve().parent.parent

# The same examples in every run: a failure seen once is seen again. Compiled loops make the first example
# slow by seconds, which a deadline would report as a failure.
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=50, print_blob=True)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return ROOT


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how to have the same order of tests again, which -q leaves out."""
    seed = getattr(config.option, "randomly_seed", None)
    if isinstance(seed, int):
        terminalreporter.write_line(f"random order of tests: --randomly-seed={seed}")
