"""How a container lives and ends: logs, exec, restarts, back-off, goodbyes, and whom it waits for."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.e2e.workloads import Stage, eventually, stage
from tests.registry import Registry
from tests.runtimes import RUNTIMES

pytestmark = pytest.mark.root

NEVER = {"policy": "Never"}


@pytest.fixture(scope="module", params=RUNTIMES)
def st(registry: Registry, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """One node for the module, for each runtime."""
    with stage(registry, request.param) as made:
        yield made


def test_stdout_and_stderr_are_kept_apart_and_in_order(st: Stage) -> None:
    script = "echo one; echo two >&2; printf 'no line break'"
    assert st.said("speaks", script) == "one\nno line breaktwo\n"
    lines = next((st.node.root / "logs/speaks").iterdir()).read_text().splitlines()
    # two pipes: what was written to one may be read before what was written to the other
    assert sorted(line.split(" ", 3)[1:] for line in lines) == [
        ["stderr", "F", "two"],
        ["stdout", "F", "one"],
        ["stdout", "P", "no line break"],
    ]


def test_logs_are_followed_until_the_container_ends(st: Stage) -> None:
    st.must_apply(st.container("follows", "for i in 1 2 3 4; do sleep 0.4; echo $i; done", restart=NEVER))
    assert st.node.cli("logs", "-f", "follows", timeout=20).stdout == "1\n2\n3\n4\n"


def test_a_log_is_rotated_at_its_size_and_only_so_many_files_are_kept(st: Stage) -> None:
    # about 70 kB a second: far from the four times maxSize between two looks at which the monitor cuts the log off
    line = "line $i " + "of a log that grows " * 30
    script = f"i=0; while :; do echo {line}; i=$((i+1)); [ $((i % 10)) = 0 ] && sleep 0.1; done"
    st.must_apply(st.container("wordy", script, log={"maxSize": "256Ki", "files": 2}))
    folder = st.node.root / "logs/wordy"
    eventually(lambda: len(list(folder.iterdir())) >= 2, "a rotated log", seconds=30)
    eventually(lambda: st.node.cli("logs", "--tail", "1", "wordy").stdout.startswith("line "), "the log goes on")
    st.delete("container/wordy")
    assert not folder.exists()


def test_exec_passes_stdin_code_environment_user_and_folder(st: Stage) -> None:
    st.must_apply(st.container("execs", "sleep 1000", env=[{"name": "OWN", "value": "yes"}]))
    cli = st.node.cli
    assert cli("exec", "-i", "execs", "--", "cat", stdin="through\n").stdout == "through\n"
    assert cli("exec", "execs", "--", "sh", "-c", "exit 42").returncode == 42
    assert cli("exec", "execs", "--", "sh", "-c", "kill -9 $$").returncode == 137
    words = ("-e", "MORE=too", "-u", "www", "-w", "/var", "execs", "--", "sh", "-c", "echo $OWN $MORE $(id -u) $(pwd)")
    assert cli("exec", *words).stdout == "yes too 1000 /var\n"
    done = cli("exec", "execs", "--", "not-a-command")
    assert done.returncode == 127
    assert "not found" in done.stderr
    assert "not-a-command" in done.stderr
    denied = cli("exec", "execs", "--", "/etc/passwd")
    assert denied.returncode == 126


def test_exec_gives_a_terminal_on_wish(st: Stage) -> None:
    st.must_apply(st.container("terminal", "sleep 1000"))
    assert st.node.cli("exec", "terminal", "--", "tty").returncode == 1
    ours, theirs = pty.openpty()
    command = st.node.arguments("exec", "-it", "terminal", "--", "sh", "-c", "tty; stty size")
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as child:
        os.close(theirs)
        said = b""
        with suppress(OSError):  # EIO: the other end is closed
            while chunk := os.read(ours, 1024):
                said += chunk
        assert child.wait(10) == 0
    os.close(ours)
    assert b"/dev/pts/" in said


def test_a_container_with_a_terminal_has_one_and_its_words_are_logged(st: Stage) -> None:
    assert "/dev/pts/0" in st.said("tty", "tty; echo $TERM", tty=True).replace("\r", "")


def test_a_killed_container_is_started_again_at_once_and_counts(st: Stage) -> None:
    st.must_apply(st.container("always", "echo began; sleep 1000"))
    before = st.pid("always")
    began = time.monotonic()
    os.kill(before, signal.SIGKILL)
    eventually(lambda: st.status("container/always").get("pid") not in (None, before), "another process")
    assert time.monotonic() - began < 5.0
    status = st.status("container/always")
    assert (status["restarts"], status["exitCode"]) == (1, 137)
    assert st.node.cli("logs", "always", "--previous").stdout == "began\n"


def test_a_container_that_crashes_on_and_on_is_started_ever_more_slowly(st: Stage) -> None:
    st.submit(st.container("crashes", "exit 3"))
    eventually(lambda: st.status("container/crashes").get("restarts", 0) >= 3, "three restarts")
    eventually(lambda: st.condition("container/crashes", "Reconciling").get("reason") == "BackOff", "a back-off")
    status = st.status("container/crashes")
    assert (status["state"], status["exitCode"]) == ("Waiting", 3)
    assert (
        "ended with Error (4 in a row); next start in " in st.condition("container/crashes", "Reconciling")["message"]
    )
    assert status["nextRetryAt"]
    assert "Restarting" in st.node.cli("describe", "container", "crashes").stdout
    st.delete("container/crashes")


def test_on_failure_runs_again_only_after_a_failure(st: Stage) -> None:
    count = "echo x >>/v/count; test $(wc -l </v/count) -ge 3"
    volume = {"apiVersion": "reconciler/v1", "kind": "Volume", "metadata": {"name": "count"}, "spec": {"retain": False}}
    mounts = [{"path": "/v", "volume": "count"}]
    st.submit(volume, st.container("tries", count, restart={"policy": "OnFailure"}, mounts=mounts))
    status = st.exited("tries")
    assert (status["exitCode"], status["restarts"]) == (0, 2)
    assert st.condition("container/tries", "Ready")["reason"] == "Completed"


def test_never_means_once_and_apply_waits_for_nothing_more(st: Stage) -> None:
    done = st.apply(st.container("once", "exit 5", restart=NEVER))
    assert done.returncode == 0
    status = st.exited("once")
    assert (status["exitCode"], status["restarts"]) == (5, 0)
    assert st.condition("container/once", "Ready")["reason"] == "Failed"
    assert st.node.cli("wait", "container/once", "--for", "Exited", "--timeout", "5s").returncode == 0
    assert "Nothing to change" in st.must_apply(st.container("once", "exit 5", restart=NEVER))


def test_the_manifests_stop_signal_is_sent_first(st: Stage) -> None:
    script = "trap 'echo got int; exit 0' INT; while :; do sleep 0.1; done"
    stop = {"signal": "INT", "grace": "20s"}
    st.must_apply(st.container("polite", script, stop=stop))
    log = next((st.node.root / "logs/polite").iterdir())
    with log.open() as reader:
        began = time.monotonic()
        st.delete("container/polite")
        assert time.monotonic() - began < 15.0
        assert "got int" in reader.read()


def test_who_does_not_end_within_the_grace_is_killed(st: Stage) -> None:
    script = "trap 'echo ignored' TERM; while :; do sleep 0.1; done"
    st.must_apply(st.container("deaf", script, stop={"grace": "1s"}))
    pid = st.pid("deaf")
    log = next((st.node.root / "logs/deaf").iterdir())
    with log.open() as reader:
        began = time.monotonic()
        st.delete("container/deaf")
        assert time.monotonic() - began >= 1.0
        assert "ignored" in reader.read()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_container_starts_after_those_it_depends_on(st: Stage) -> None:
    first = st.container("first", "sleep 1; exit 0", restart=NEVER)
    second = st.container(
        "second", "sleep 1000", dependsOn=[{"container": "first", "condition": "Succeeded"}], restart=NEVER
    )
    third = st.container("third", "sleep 1000", dependsOn=[{"container": "second"}])
    st.submit(third, second, first)
    eventually(
        lambda: "has not succeeded yet" in st.condition("container/second", "Reconciling").get("message", ""), "a wait"
    )
    eventually(lambda: st.status("container/third").get("pid"), "the third runs")
    exited = st.status("container/first")["finishedAt"]
    assert exited <= st.status("container/second")["startedAt"] <= st.status("container/third")["startedAt"]
