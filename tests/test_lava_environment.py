"""Lava where the system gives too little, where processes are not forked, and when its program is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

pytest.importorskip("lava.magma", reason="lava-nc is not installed")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="about limits and processes of Linux")

RUN = """
import errno, multiprocessing, resource, sys
import numpy as np
from delaynet_lava import Dense, Network, Neuron, Synapse
from delaynet_lava.errors import DelayNetError

hidden = Dense(Synapse(np.full((6, 4), 64)), Neuron(50, 300, 40), Synapse(np.full((6, 6), 4), 3))
network = Network((hidden,))

def run(steps=20):
    import delaynet_lava.lava
    try:
        trace = delaynet_lava.lava.run(network, np.ones((1, steps, 4), np.uint8))
        print("spikes", trace.spike_counts[0].sum())
    except DelayNetError as error:
        print(error)
"""


def said(code: str, folder: Path) -> list[str]:
    """Lines that a program prints."""
    program = folder / "program.py"
    program.write_text(f"{RUN}\nif __name__ == '__main__':\n{textwrap.indent(code, '    ')}\n")
    result = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_too_few_descriptors_give_one_line(tmp_path):
    limits = "resource.setrlimit(resource.RLIMIT_NOFILE, ({0}, {0}))"
    (line,) = said("import delaynet_lava.lava\n" + limits.format(64) + "\nrun()", tmp_path)
    assert "Too many open files" in line and "ulimit -n" in line


@pytest.mark.parametrize(("number", "remedy"), [("EROFS", "mount"), ("ENOSPC", "--shm-size")])
def test_shared_memory_that_cannot_be_had_gives_one_line_and_the_next_run_works(tmp_path, number, remedy):
    code = f"""import os, _posixshmem, multiprocessing.shared_memory as shared
import delaynet_lava.lava
def refuse(*_, **__): raise OSError(errno.{number}, os.strerror(errno.{number}))
plain, shared._posixshmem = shared._posixshmem, type("none", (), {{"shm_open": refuse}})
run()
shared._posixshmem = plain
run()"""
    refused, works = said(code, tmp_path)
    assert remedy in refused and "could not be started" in refused
    assert works.startswith("spikes ") and works != "spikes 0"


def test_another_start_method_is_named_with_the_remedy_that_works(tmp_path):
    remedy = "multiprocessing.set_start_method('fork', force=True)"
    code = f"""multiprocessing.set_start_method("spawn")
try:
    import delaynet_lava.lava
except DelayNetError as error:
    print(error)
{remedy}
run()
multiprocessing.set_start_method("spawn", force=True)
run()
{remedy}
run()"""
    before, works, after, again = said(code, tmp_path)
    for line in (before, after):
        assert remedy in line and "'spawn'" in line and "pip" not in line
    assert works == again and works.startswith("spikes ") and works != "spikes 0"


def children(pid: int) -> list[int]:
    """Processes below this one, as the kernel lists them; the tracker of shared memory ends by itself."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return [p for p in found if b"resource_tracker" not in Path(f"/proc/{p}/cmdline").read_bytes()]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


GARBAGE = """
import gc, os
from lava.magma.core.model.py.model import AbstractPyProcessModel

class Waits:
    # As torch's Gloo does, for threads that are not where it is forked to.
    def __del__(self):
        if os.getpid() != parent:
            open(SEEN, "a").write("waits for ever")

def collected(model):
    collect()
    start(model)

parent, start, collect = os.getpid(), AbstractPyProcessModel.start, gc.collect
AbstractPyProcessModel.start = collected
gc.disable()
if WITHOUT:
    gc.collect = gc.freeze = lambda: None
for _ in range(2):
    waits = Waits()
    waits.itself = waits
    run(3)
"""


@pytest.mark.parametrize("without", [False, True])
def test_garbage_of_the_program_is_not_collected_in_lavas_processes(tmp_path, without):
    code = GARBAGE.replace("WITHOUT", str(without)).replace("SEEN", repr(str(tmp_path / "seen")))
    assert [line.split()[0] for line in said(code, tmp_path)] == ["spikes", "spikes"]
    assert (tmp_path / "seen").exists() == without


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_program(tmp_path, how):
    program = tmp_path / "program.py"
    program.write_text(RUN + "\nrun(1_000_000)\n")
    with subprocess.Popen([sys.executable, program], stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 100
            while len(started := children(process.pid)) < 5 and time.monotonic() < deadline:
                assert process.poll() is None
                time.sleep(0.05)
            assert len(started) >= 5
            os.kill(process.pid, how)
            assert process.wait(60) == -how
        finally:
            process.kill()
    deadline = time.monotonic() + 60
    while any(map(alive, started)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, started))
