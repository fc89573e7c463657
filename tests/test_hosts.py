"""Commands and files here and on a front node: nothing is misread on the way, and a lost line is said."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_tools import wait_for
from ssh_tools import FrontNode, front_node

from delaynet_lava.deploy.hosts import ConnectionLost, Host, Local, Ssh, host_of
from delaynet_lava.errors import InputError

# A folder's name that a shell, scp or a careless split would take apart.
HOSTILE = "-o a b'c\"d\ne;f$(touch pwned)`touch pwned`:g*"
ARGUMENTS = [
    "; touch pwned",
    "$(touch pwned)",
    "`touch pwned`",
    "a\nb",
    "",
    "-x",
    "'",
    '"',
    "*",
    "~",
    "\\",
    "!",
]


@pytest.fixture(scope="module")
def running_front() -> Iterator[FrontNode]:
    with front_node({"WHOSE": "the front node's own"}) as node:
        yield node


@pytest.fixture
def front(running_front: FrontNode, monkeypatch: pytest.MonkeyPatch) -> FrontNode:
    for variable, value in running_front.env.items():
        monkeypatch.setenv(variable, value)
    return running_front


@pytest.fixture(params=["here", "over ssh"])
def host(request: pytest.FixtureRequest) -> Host:
    return Local() if request.param == "here" else host_of(request.getfixturevalue("front").alias)


def folder_of(path: Path, **files: bytes) -> Path:
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def cut_when_there(pattern: str, folder: Path, front: FrontNode) -> threading.Thread:
    """Drop the connections when a file of this name has begun to grow."""

    def cut() -> None:
        wait_for(lambda: any(path.stat().st_size for path in folder.glob(pattern)), "the first bytes")
        front.drop()

    thread = threading.Thread(target=cut)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "destination",
    [
        "", "-oProxyCommand=touch pwned", "--", "-p22", "a b", "a;b", "$(x)", "a\n", "\na", "a\nb", "a`b`",
        "a/b", "user@", "@host", "user@-oProxyCommand=x", "-l@host", "a@b@c", "host:22", "ssh://host", "h*",
        "h'", "[::1", "::1]", "a[::1]", "user@[host]", "h\0", "ä", "host ", "h%h",
    ],
)  # fmt: skip
def test_destinations_that_ssh_could_misread_are_refused(destination):
    with pytest.raises(InputError, match=r"^host: .* is not host, user@host or an IPv6 address; a port"):
        host_of(destination)


@pytest.mark.parametrize("destination", ["host", "user@host", "u.v-w@a-b.c_d.org", "127.0.0.1", "vm", "3com"])
def test_destinations_that_ssh_knows(destination):
    assert host_of(destination).name == destination


def test_an_ipv6_address_is_written_as_each_client_wants_it():
    for destination in ("user@fe80::1", "user@[fe80::1]"):
        host = Ssh(destination)
        assert (host.name, host._far("/a")) == ("user@fe80::1", "user@[fe80::1]:/a")


def test_no_destination_is_this_machine():
    assert host_of(None).name == "this machine"


def test_arguments_arrive_as_they_are(host, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = 'for a do printf "%s\\0" "$a"; done; ls pwned >&2'
    answer = host.run(["sh", "-c", script, "sh", *ARGUMENTS])
    assert answer.out.split("\0") == [*ARGUMENTS, ""]
    # The control: `ls` did look for what an argument would have made.
    assert answer.code != 0 and "pwned" in answer.reason
    assert not (tmp_path / "pwned").exists()


def test_input_output_and_exit_code(host):
    answer = host.run(["sh", "-c", "cat; echo oops >&2; exit 7"], input=b"a\nb\xff")
    assert (answer.code, answer.out, answer.reason) == (7, "a\nb\ufffd", "oops")


def test_variables_are_set_beside_those_that_are_there(host):
    value = "a b;'c\n$(touch pwned)"
    answer = host.run(["sh", "-c", 'printf "%s|%s" "$NEW" "${HOME:+home}"'], env={"NEW": value})
    assert answer.out == f"{value}|home"


def test_a_command_that_is_not_there_answers_127(host):
    answer = host.run(["no-such-command", "x"])
    assert answer.code == 127
    assert "no-such-command: command not found" in answer.reason


def test_a_file_that_is_no_program_is_an_answer_too(tmp_path):
    (tmp_path / "text").write_text("x")
    assert Local().run([str(tmp_path / "text")]).code == 126


def test_a_reason_obeys_no_terminal(host):
    assert host.run(["sh", "-c", r"printf 'x\033[2Jy\n \n' >&2"]).reason == "x?[2Jy"
    assert host.run(["false"]).reason == "exit code 1"


def test_an_argument_with_nul_is_refused(host):
    with pytest.raises(InputError, match="NUL"):
        host.run(["echo", "a\0b"])


def test_a_variable_that_is_none_is_refused_over_ssh(front):
    with pytest.raises(InputError, match="is no name of a variable"):
        Ssh(front.alias).run(["true"], env={"-S touch pwned;A": "x"})


def test_too_late_is_no_answer_and_ends_the_command(tmp_path):
    there = tmp_path / "pid"
    with pytest.raises(ConnectionLost, match=r"^this machine: no answer \(sh took longer than 0.5 s\)$"):
        # Its child holds the pipes: waiting for their end would wait for the child.
        Local().run(["sh", "-c", f"sleep 1000 & echo $! > {there}; wait"], timeout_s=0.5)
    stat = Path(f"/proc/{there.read_text().strip()}/stat")
    wait_for(lambda: not stat.exists() or stat.read_text().split()[2] == "Z", "the child's end")


def test_too_late_over_ssh(front):
    with pytest.raises(
        ConnectionLost, match=r"^frontnode: no answer \(nothing within 1 s\); see that `ssh fr"
    ):
        Ssh(front.alias).run(["sleep", "1000"], timeout_s=1)


@pytest.mark.parametrize("client", ["ssh", "scp"])
def test_a_client_that_is_not_installed_is_one_line(client, front, tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "bundle", a=b"1")
    if client == "scp":
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "ssh").symlink_to("/usr/bin/ssh")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(
        InputError, match=rf"^{client}: can't be started \(No such file or directory\); install"
    ):
        Ssh(front.alias).place(folder, "without")


def test_files_go_and_come_back_complete(host, tmp_path):
    content = os.urandom(300_000)
    folder = folder_of(tmp_path / HOSTILE, **{"net.h5": content, "run.py": b""})
    there = host.place(folder, "job-1")
    assert host.run(["ls", "-A", there]).out.split() == ["net.h5", "run.py"]
    host.run(["sh", "-c", 'printf new > "$1/result-0.npz"', "sh", there])
    back = folder_of(tmp_path / f"back {HOSTILE}", **{"net.h5": b"before"})
    names = ["result-0.npz", "result-1.npz", "net.h5"]
    assert host.collect(there, names, back) == ["result-0.npz", "net.h5"]
    assert {path.name: path.read_bytes() for path in back.iterdir()} == {
        "net.h5": content,
        "result-0.npz": b"new",
    }


def test_on_this_machine_nothing_is_copied(tmp_path):
    folder = folder_of(tmp_path / HOSTILE, a=b"1")
    there = Local().place(folder, "job")
    assert there == str(folder.resolve())
    before = (folder / "a").stat()
    assert Local().collect(there, ["a", "b"], folder) == ["a"]
    assert (folder / "a").stat() == before and os.listdir(folder) == ["a"]


def test_what_is_placed_is_readable_by_its_owner_only_and_lies_in_the_home(front, tmp_path):
    there = Ssh(front.alias).place(folder_of(tmp_path / "bundle", a=b"1"), "private")
    assert there == f"{front.home}/delaynet-jobs/private"
    assert Path(there).stat().st_mode & 0o777 == 0o700


def test_a_name_that_is_taken_there_is_refused_and_untouched(front, tmp_path):
    host = Ssh(front.alias)
    there = host.place(folder_of(tmp_path / "one", a=b"1"), "taken")
    with pytest.raises(InputError, match=r"^frontnode:delaynet-jobs/taken: exists already; choose another"):
        host.place(folder_of(tmp_path / "two", a=b"2"), "taken")
    assert Path(there, "a").read_bytes() == b"1"
    assert not [name for name in os.listdir(front.home / "delaynet-jobs") if name.startswith(".taken")]


@pytest.mark.parametrize(
    "name", ["", "..", ".a", "-r", "a b", "a/b", "/etc/passwd", "a\nb", "a*", "$(x)", "ä"]
)
def test_other_names_of_files_are_refused(name, host, tmp_path):
    folder = folder_of(tmp_path / "bundle", a=b"1")
    with pytest.raises(InputError, match=r"has more than letters"):
        host.place(folder, name)
    with pytest.raises(InputError, match=r"has more than letters"):
        host.collect(str(folder), [name], tmp_path)


def test_a_folder_with_more_than_plain_files_is_not_placed(host, tmp_path):
    for k, spoil in enumerate(
        [
            lambda folder: (folder / "a\nb").write_text("x"),
            lambda folder: (folder / "-o").write_text("x"),
            lambda folder: (folder / "link").symlink_to("/etc/passwd"),
            lambda folder: (folder / "more").mkdir(),
            lambda folder: os.mkfifo(folder / "pipe"),
        ]
    ):
        spoil(folder := folder_of(tmp_path / str(k), a=b"1"))
        with pytest.raises(InputError, match="is not a plain file with a plain name"):
            host.place(folder, f"spoilt-{k}")
    with pytest.raises(InputError, match="holds no file"):
        host.place(folder_of(tmp_path / "empty"), "empty")
    with pytest.raises(InputError, match=r"absent: can't be read \(No such file"):
        host.place(tmp_path / "absent", "absent")


def test_no_such_folder_there(host, tmp_path):
    with pytest.raises(InputError, match="/no/such"):
        host.collect("/no/such", ["a"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_there_that_scp_could_misread_is_refused(front, tmp_path):
    folder = folder_of(tmp_path / "a b;touch pwned", a=b"1")
    with pytest.raises(InputError, match="scp does not carry every character"):
        Ssh(front.alias).collect(str(folder), ["a"], tmp_path)


def test_no_room_there_is_said_and_leaves_nothing(front, tmp_path):
    jobs = front.home / "delaynet-jobs"
    jobs.mkdir(exist_ok=True)
    jobs.rename(front.home / "kept")
    try:
        jobs.write_text("a file where the folder should be")
        with pytest.raises(InputError, match=r"^frontnode:delaynet-jobs: can't be written \(.*File exists\)"):
            Ssh(front.alias).place(folder_of(tmp_path / "bundle", a=b"1"), "job")
    finally:
        jobs.unlink()
        (front.home / "kept").rename(jobs)


def test_a_connection_dropped_while_a_command_runs(front):
    host = Ssh(front.alias)
    thread = cut_when_there("begun", front.home, front)
    with pytest.raises(
        ConnectionLost, match=r"^frontnode: no answer \(.*closed.*\); see that `ssh frontnode true`"
    ):
        host.run(["sh", "-c", 'echo x > "$1"; sleep 1000', "sh", f"{front.home}/begun"])
    thread.join()
    assert host.run(["true"]).code == 0


def test_no_connection_and_again_one(front, tmp_path):
    host = Ssh(front.alias)
    there = host.place(folder_of(tmp_path / "bundle", a=b"1"), "lasting")
    back = folder_of(tmp_path / "back", a=b"before")
    front.stop()
    try:
        for lost in (
            lambda: host.run(["true"]),
            lambda: host.place(tmp_path / "bundle", "job"),
            lambda: host.collect(there, ["a"], back),
        ):
            with pytest.raises(ConnectionLost, match=r"frontnode: no answer .*Connection refused"):
                lost()
    finally:
        front.start()
    assert (back / "a").read_bytes() == b"before"
    assert host.collect(there, ["a"], back) == ["a"]
    assert (back / "a").read_bytes() == b"1"


def test_a_connection_dropped_in_the_middle_of_a_file(front, tmp_path):
    host = Ssh(front.alias)
    folder = folder_of(tmp_path / "bundle", a=b"1", b=b"2")
    there = host.place(folder, "whole")
    back = folder_of(tmp_path / "back", a=b"before")
    for path in (folder / "b", Path(there, "b")):
        os.truncate(path, 2_000_000_000)  # sparse: takes no room, but seconds to send
    for pattern, begin, lost in (
        (".delaynet-*/b", back, lambda: host.collect(there, ["a", "b"], back)),
        (".cut-*/b", front.home / "delaynet-jobs", lambda: host.place(folder, "cut")),
    ):
        thread = cut_when_there(pattern, begin, front)
        with pytest.raises(ConnectionLost, match=r"frontnode: no answer .*[Cc]onnection"):
            lost()
        thread.join()
    assert {path.name: path.read_bytes() for path in back.iterdir()} == {"a": b"before"}
    assert not (front.home / "delaynet-jobs" / "cut").exists()
    assert host.collect(there, ["a"], back) == ["a"]
    assert (back / "a").read_bytes() == b"1"
