"""How commands behave towards people: help, suggestions, places to write to, terminals, interruptions."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delaynet_lava import cli
from delaynet_lava._version import __version__
from delaynet_lava.cli import deploy, layout
from delaynet_lava.cli.interrupts import interrupts_arrive
from delaynet_lava.cli.output import say
from delaynet_lava.deploy import job
from delaynet_lava.errors import InputError, reason
from delaynet_lava.formats import netx


def call(*args: str, entry=cli.main) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as stop:
        entry(list(args))
    return int(stop.value.code or 0)


def refused(capsys, *args: str, entry=cli.main) -> str:
    """The line that a command ends with which does not begin."""
    capsys.readouterr()
    assert call(*args, entry=entry) == 2
    streams = capsys.readouterr()
    assert streams.out == "" and streams.err.count("\n") == 1, streams
    return streams.err.rstrip("\n")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    from delaynet_lava.export import export_netx

    path = tmp_path_factory.mktemp("net") / "net.h5"
    export_netx("model:cue_loihi2", str(path))
    return str(path)


# ------------------------------------------------------------------ words


def test_both_programs_know_h_and_version(capsys):
    for entry, name in ((cli.main, "delaynet"), (cli.export_main, "delaynet-export")):
        assert call("--version", entry=entry) == 0
        assert capsys.readouterr().out == f"{name} {__version__}\n"
        assert call("-h", entry=entry) == 0
        assert capsys.readouterr().out.startswith(f"Usage: {name} ")


def test_a_mistyped_word_is_guessed_and_the_help_that_is_named_is_the_right_one(capsys):
    assert refused(capsys, "inspct").endswith("did you mean inspect? (see delaynet --help)")
    assert "did you mean" not in refused(capsys, "xyzzy")
    assert refused(capsys, "plot", "latice").endswith("did you mean lattice? (see delaynet plot --help)")
    line = refused(capsys, "run", "net.h5", "--sample", "3")
    assert "--samples" in line and line.endswith("(see delaynet run --help)")
    assert refused(capsys, "run").endswith("(see delaynet run --help)")
    assert refused(capsys, "--bogus", entry=cli.export_main).endswith("(see delaynet-export --help)")


def test_a_strange_word_is_shown_and_moves_no_cursor(capsys):
    line = refused(capsys, "run\x1b[2J\nx")
    assert "\x1b" not in line


def complete(*words: str, shell: str = "bash") -> list[str]:
    """What a shell is told for the last of these words."""
    environment = {
        **os.environ,
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
        "_DELAYNET_COMPLETE": f"{shell}_complete",
    }
    command = [sys.executable, "-c", "from delaynet_lava.cli import main; main()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_shells_of_whole_words_get_the_option_too():
    assert (
        complete("delaynet", "train", "cue", "--init=model:cue_p", shell="zsh")[1] == "--init=model:cue_paper"
    )
    assert complete("delaynet", "train", "--init=model:cue_p") == ["plain,model:cue_paper"]  # bash


def test_words_are_completed():
    assert complete("delaynet", "in") == ["plain,inspect", "plain,init"]
    assert complete("delaynet", "profiles", "--js") == ["plain,--json"]
    assert complete("delaynet", "train", "--recipe", "loihi2-d") == ["plain,loihi2-dense"]
    assert complete("delaynet", "train", "--recipe", "./mine") == ["file,./mine"]
    assert complete("delaynet", "run", "model:cue_l") == ["plain,model:cue_loihi2"]
    assert complete("delaynet", "completion", "") == ["plain,bash", "plain,zsh", "plain,fish"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_reads_what_completion_prints(shell, capsys, tmp_path):
    assert call("completion", shell) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    assert "_DELAYNET_COMPLETE" in script.read_text()
    if shutil.which(shell):
        option = "--no-execute" if shell == "fish" else "-n"
        subprocess.run([shell, option, str(script)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def bash(tmp_path_factory):
    """What a line becomes in bash when Tab is pressed at its end, as the terminal shows it."""
    pty = pytest.importorskip("pty")
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    folder = tmp_path_factory.mktemp("bash")
    for name, entry in (("delaynet", "main"), ("delaynet-export", "export_main")):
        program = folder / name
        program.write_text(
            f"#!/bin/sh\nexec {sys.executable} -c 'from delaynet_lava.cli import {entry}; {entry}()' \"$@\"\n"
        )
        program.chmod(0o755)
    (folder / "rc").write_text(
        "PS1='> '\nbind 'set enable-bracketed-paste off'\neval \"$(delaynet completion bash)\"\n"
    )
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "TERM": "dumb", "COLUMNS": "200"}
    command = ["bash", "--rcfile", str(folder / "rc"), "-i"]
    mine, its = pty.openpty()
    running = subprocess.Popen(
        command, stdin=its, stdout=its, stderr=its, env=environment, cwd=folder, start_new_session=True
    )
    os.close(its)

    def until(mark: str) -> str:
        seen, patience = "", time.monotonic() + 60
        while mark not in seen:
            ready, _, _ = select.select([mine], [], [], max(0, patience - time.monotonic()))
            assert ready, seen
            seen += os.read(mine, 4096).decode()
        return seen.rpartition(mark)[0]

    until("> ")

    def press(line: str) -> str:
        # Behind the completed word a mark is typed, which says that bash is done with it.
        os.write(mine, f"{line}\t@@".encode())
        shown = until("@@")
        os.write(mine, b"\x15:\r")  # another line instead
        until(":\r\n> ")
        return shown.replace("\a", "").rpartition("> ")[2]

    yield press
    running.kill()
    running.wait()
    os.close(mine)


def test_bash_completes_behind_a_colon_and_an_equals_sign(bash):
    assert bash("delaynet run mod") == "delaynet run model:"
    assert bash("delaynet run model:cue_l") == "delaynet run model:cue_loihi2 "
    assert bash("delaynet train cue --init=model:cue_p") == "delaynet train cue --init=model:cue_paper "
    assert bash("delaynet-export model:cue_l") == "delaynet-export model:cue_loihi2 "
    # A file, as ever, and what is nothing of ours.
    assert bash("delaynet run ./r") == "delaynet run ./rc "
    assert bash("delaynet run model:x") == "delaynet run model:x"


def test_completion_of_another_shell_is_refused(capsys):
    assert "choose from: bash, zsh, fish" in refused(capsys, "completion", "tcsh")


# ------------------------------------------------------------------ places to write to


def test_a_place_is_refused_before_the_work(net, tmp_path, capsys, monkeypatch):
    def work(*_, **__):
        raise AssertionError("work began")

    for module in ("run", "inspect", "evaluate", "plot"):
        monkeypatch.setattr(f"delaynet_lava.cli.{module}.open_network", work)
    inside, folder = str(tmp_path / "none" / "x"), str(tmp_path)
    assert "its folder does not exist" in refused(capsys, "run", net, "--json", inside)
    assert "is a folder" in refused(capsys, "run", net, "--json", folder)
    assert "does not exist" in refused(capsys, "inspect", net, "--html", inside + ".html")
    assert "does not exist" in refused(capsys, "evaluate", net, "--plot", inside + ".png")
    assert "does not exist" in refused(capsys, "plot", "lattice", net, "-o", inside + ".png")
    assert "ends in '.bmp'" in refused(capsys, "plot", "lattice", net, "-o", "x.bmp")
    assert "does not exist" in refused(capsys, "export", net, "-o", inside + ".h5")
    assert "does not exist" in refused(capsys, "profiles", "--json", inside)
    assert "does not exist" in refused(capsys, "init", "cue", "--json", inside)


def test_a_report_does_not_replace_a_network(net, capsys):
    before = Path(net).read_bytes()
    assert "holds a network or a model" in refused(capsys, "run", net, "--json", net)
    assert "holds a network or a model" in refused(capsys, "inspect", net, "--html", net)
    assert Path(net).read_bytes() == before


def test_a_finished_model_is_not_replaced_unless_one_says_so(tmp_path, capsys, monkeypatch):
    model = tmp_path / "model.pt"
    model.write_bytes(b"hours of work")
    line = refused(capsys, "train", "cue", "-o", str(model))
    assert line.endswith("is there already; name another file, or --force to train it anew")
    assert model.read_bytes() == b"hours of work"
    begun = []
    monkeypatch.setattr("delaynet_lava.training.trainer.train", lambda *a, **k: begun.append(a) or 1 / 0)
    assert call("train", "cue", "-o", str(model), "--force") == cli.FAULT and len(begun) == 1
    # A training that was to replace it and was killed goes on without the word.
    Path(f"{model}.checkpoint").write_bytes(b"half")
    assert call("train", "cue", "-o", str(model)) == cli.FAULT and len(begun) == 2


def test_a_dash_is_stdout_for_every_file(net, capfdbinary):
    assert call("run", net, "--samples", "2", "--json", "-") == 0
    assert json.loads(capfdbinary.readouterr().out)["samples"] == 2
    assert call("plot", "activity", net, "--samples", "1", "-o", "-") == 0
    out = capfdbinary.readouterr().out
    assert out.startswith(b"<?xml") and out.rstrip().endswith(b"</svg>")
    assert call("inspect", net, "--samples", "1", "--html", "-") == 0
    out = capfdbinary.readouterr().out
    assert out.startswith(b"<!DOCTYPE html>") and out.endswith(b"</html>\n")
    # Taken as long as the command runs: a program that goes on has it again.
    say("heard")
    assert capfdbinary.readouterr().out == b"heard\n"


def test_a_network_on_stdout_is_the_file(net, capfdbinary, tmp_path):
    assert call("export", net, "-o", "-") == 0
    path = tmp_path / "piped.h5"
    path.write_bytes(capfdbinary.readouterr().out)
    assert netx.read(path).summary() == netx.read(net).summary()


def test_stdout_takes_one_file_only(net, capsys):
    line = refused(capsys, "inspect", net, "--html", "-", "--json", "-")
    assert "stdout is taken by --html" in line
    assert "goes on from a file" in refused(capsys, "train", "cue", "-o", "-")
    # The next command has stdout for itself again.
    assert call("profiles") == 0
    assert "loihi2" in capsys.readouterr().out


def test_deployments_in_one_second_have_a_folder_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(deploy.time, "strftime", lambda _: "20260101-120000")
    made = [deploy._new_folder(Path("net.h5")) for _ in range(3)]
    assert len(set(made)) == 3 and all(path.is_dir() for path in made)


def test_git_leaves_jobs_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job.make_folder("one").joinpath("file").write_text("x")
    subprocess.run(["git", "init", "-q"], check=True)
    status = subprocess.run(["git", "status", "--porcelain"], check=True, capture_output=True, text=True)
    assert status.stdout == ""


# ------------------------------------------------------------------ interruptions and errors of others


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_ctrl_c_says_what_is_kept(net, tmp_path):
    command = [sys.executable, "-m", "delaynet_lava", "train", "cue", "-o", "m.pt"]
    running = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        # A shell lets what it starts behind & ignore Ctrl-C, and so the tests may.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert running.stdout is not None and running.stdout.readline()  # it trains
    time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 130
    assert said.rstrip("\n").startswith("delaynet train: interrupted; ") and said.count("\n") == 1


class Interrupted:
    def __del__(self):
        raise KeyboardInterrupt


def test_ctrl_c_arrives_where_a_destructor_runs(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    Interrupted()  # Python alone drops it
    time.sleep(0.3)
    assert [issubclass(dropped.exc_type, KeyboardInterrupt) for dropped in told] == [True]
    told.clear()
    # Programs that a shell starts in the background ignore the signal, and so the tests may.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), interrupts_arrive():
            Interrupted()
            time.sleep(100)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not told and sys.unraisablehook == told.append


def test_ctrl_c_of_any_command(net, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("delaynet_lava.evaluation.evaluate", stop)
    capsys.readouterr()
    assert call("run", net) == 130
    said = capsys.readouterr().err.lstrip("\n")  # the line that shows ^C is ended
    assert said == (
        "delaynet: interrupted; files it had written are whole, others are as they were; call it again\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        "[enforce fail at alloc_cpu.cpp:83] . DefaultCPUAllocator: can't allocate memory: you tried",
        "CUDA out of memory. Tried to allocate 20.00 MiB",
    ],
)
def test_torch_without_memory_is_said_plainly(net, capsys, monkeypatch, words):
    def fail(*_, **__):
        raise RuntimeError(words)

    monkeypatch.setattr("delaynet_lava.evaluation.evaluate", fail)
    assert refused(capsys, "run", net) == "delaynet: out of memory; use fewer samples at a time"


def test_the_words_of_torch_are_not_shown(net, capsys, monkeypatch):
    torch = pytest.importorskip("torch")

    def fail(*_, **__):
        torch.zeros(2, 3) @ torch.zeros(2, 3)

    monkeypatch.setattr("delaynet_lava.evaluation.evaluate", fail)
    capsys.readouterr()
    assert call("run", net) == cli.FAULT
    line = capsys.readouterr().err
    assert "RuntimeError in run.py:" in line and "raised by torch; --debug shows where" in line
    assert "mat1" not in line and line.count("\n") == 1
    monkeypatch.setattr("delaynet_lava.evaluation.evaluate", lambda *_, **__: {}["key"])
    assert call("run", net) == cli.FAULT
    assert "KeyError in run.py" in (line := capsys.readouterr().err) and "'key'" in line


def test_tensors_of_another_network_are_named(tmp_path):
    torch = pytest.importorskip("torch")
    from delaynet_lava.nn.model import load_state

    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    state = {**net.state_dict(), "0.weight": torch.zeros(3, 4), "9.bias": torch.zeros(1)}
    del state["1.bias"]
    with pytest.raises(InputError) as caught:
        load_state(net, state, "state.pt")
    assert str(caught.value) == (
        "state.pt: does not fit the network ('0.weight' has shape (3, 4), the network's (3, 2); "
        "it lacks '1.bias'; the network has no '9.bias')"
    )
    with pytest.raises(InputError, match="and 3 tensors more"):
        load_state(net, {}, "state.pt")


def test_of_others_code_the_first_line_is_told():
    words = "size mismatch at [0]:\n\tcopying a param\n  frame #0: c10::Error"
    assert reason(RuntimeError(words)) == "RuntimeError: size mismatch at [0]:"
    assert len(reason(ValueError("x" * 9999))) == 120 and reason(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_a_tensor_that_numpy_does_not_take():
    torch = pytest.importorskip("torch")
    from delaynet_lava.checked import as_array

    with pytest.raises(InputError, match=r"inputs: is a tensor with a gradient.*detach\(\)"):
        as_array(torch.ones(2, requires_grad=True), "inputs")
    with pytest.raises(InputError, match="is no array of numbers"):
        as_array([[1], [2, 3]], "inputs")


# ------------------------------------------------------------------ terminals


@pytest.mark.parametrize("columns", [60, 80])
def test_every_line_fits_a_terminal(net, capsys, monkeypatch, columns, tmp_path):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.chdir(Path(net).parent)
    for command in (
        ["inspect", "net.h5", "--samples", "2"],
        ["run", "net.h5", "--samples", "2", "--task", "cue:cues=1,wait_ms=150"],
        ["evaluate", "net.h5", "--samples", "2", "--vary", "cues=1,3"],
        ["profiles"],
        ["profiles", "loihi2"],
        ["verify", "net.h5"],
        ["init", "cue", "--samples", "1", "--recipe", "loihi2"],
    ):
        capsys.readouterr()
        assert call(*command) in (0, 1)
        out = capsys.readouterr().out
        wide = [line for line in out.split("\n") if len(line) > columns and " " in line.strip()]
        assert not wide, (command, wide)


def test_a_pipe_has_a_line_a_row(net, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert call("inspect", net, "--samples", "2") == 0
    out = capsys.readouterr().out
    assert "tau of u, ms  tau of v, ms" in out and max(map(len, out.split("\n"))) > 120


WORDS = st.text("abcxyz.", min_size=1, max_size=30)
CELLS = st.lists(WORDS, max_size=5).map(" ".join)
ROWS = st.integers(1, 7).flatmap(
    lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), min_size=1, max_size=4)
)


@settings(max_examples=60)
@given(ROWS, st.integers(40, 160))
def test_no_letter_of_a_table_is_lost(rows, columns):
    """All letters are there, those of the first column once for each group of columns that is shown."""
    heads = [f"{k}" for k in range(len(rows[0]))]
    shown = layout.table(heads, rows, columns)
    assert all(len(line) <= columns for line in shown)
    found = sorted("".join("".join(shown).split()))
    once = "".join(cell for row in [heads, *rows] for cell in row[1:])
    first = "".join(row[0] for row in [heads, *rows])
    groups = range(1, max(2, len(heads)))
    assert found in [sorted("".join((once + first * n).split())) for n in groups]


def test_a_path_is_broken_behind_its_points_and_strokes():
    rows = [["lava.magma.runtime.message_infrastructure", "not needed, as was found here by a look at it"]]
    shown = layout.table(["module", "here"], rows, 50)
    assert [line.split("  ")[0] for line in shown] == [
        "module",
        "lava.magma.runtime.",
        "message_infrastructure",
    ]


def test_columns_that_do_not_fit_come_below():
    heads = [f"column{k}" for k in range(12)]
    shown = layout.table(heads, [[f"value{k}" for k in range(12)]], 60)
    assert (
        sum(line.startswith("column0") for line in shown)
        == sum(line.startswith("value0") for line in shown)
        > 1
    )
    assert " ".join(shown).count("value11") == 1
    assert layout.table(heads, [], None) == ["  ".join(heads)]
