"""Containers under containerd's shim: the same as under runc, and what comes when a shim or the agent is killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from core.proc import ProcessId, boot_id
from tests.e2e import test_workloads_life as life
from tests.e2e.workloads import Stage, document, eventually, stage
from tests.fakes import played_shim
from tests.registry import Registry

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def st(registry: Registry) -> Iterator[Stage]:
    """One node for the module, whose containers run under the shim unless they say otherwise."""
    with stage(registry, "runc-v2") as made:
        yield made


test_stdout_and_stderr_are_kept_apart_and_in_order = life.test_stdout_and_stderr_are_kept_apart_and_in_order
test_exec_passes_stdin_code_environment_user_and_folder = life.test_exec_passes_stdin_code_environment_user_and_folder
test_exec_gives_a_terminal_on_wish = life.test_exec_gives_a_terminal_on_wish
test_a_container_with_a_terminal = life.test_a_container_with_a_terminal_has_one_and_its_words_are_logged
test_a_killed_container_is_started_again = life.test_a_killed_container_is_started_again_at_once_and_counts
test_who_does_not_end_within_the_grace_is_killed = life.test_who_does_not_end_within_the_grace_is_killed


def shim(st: Stage, name: str) -> int:
    """The pid of a running container's shim."""
    bundle = st.node.state / "bundles" / st.status(f"container/{name}")["snapshot"]
    pid = json.loads((bundle / "shim.json").read_text())["pid"]
    assert isinstance(pid, int)
    return pid


def alive(pid: int) -> bool:
    """Whether it runs; what nobody has waited for yet does not."""
    seen = ProcessId.of(pid, boot_id())
    return seen is not None and seen.alive(boot_id())


def test_a_shim_that_is_killed_is_seen_within_seconds_and_its_neighbour_is_not_touched(st: Stage) -> None:
    st.must_apply(st.container("hit", "sleep 1000"), st.container("beside", "sleep 1000"))
    first, beside = st.pid("hit"), st.pid("beside")
    os.kill(shim(st, "hit"), signal.SIGKILL)
    eventually(lambda: st.status("container/hit").get("pid") != first, "it is seen", seconds=5)
    eventually(lambda: st.status("container/hit").get("pid") is not None, "it runs anew")
    assert st.status("container/hit")["restarts"] == 1
    assert not alive(first)
    assert st.pid("beside") == beside
    assert st.exec("hit", "echo there") == "there\n"
    st.delete("container/hit", "container/beside")


def test_a_container_outlives_the_agent_and_its_log_and_exit_are_there(st: Stage) -> None:
    ticking = "trap 'echo bye; exit 7' TERM; while :; do echo tick; sleep 0.05; done"
    st.must_apply(st.container("stays", "sleep 1000"), st.container("ends", ticking, restart={"policy": "Never"}))
    stays, ends = st.pid("stays"), st.pid("ends")
    agent = st.node.running[-1]
    agent.kill()
    agent.wait()
    os.kill(ends, signal.SIGTERM)
    eventually(lambda: not alive(ends), "it ends without the agent")
    st.node.spawn("agent")
    assert st.exited("ends")["exitCode"] == 7
    assert st.node.cli("logs", "--tail", "1", "ends").stdout == "bye\n"
    assert st.pid("stays") == stays
    assert st.exec("stays", "echo there") == "there\n"
    st.delete("container/stays", "container/ends")


def test_containers_of_one_sandbox_talk_over_localhost(st: Stage) -> None:
    serving = "echo hello > /tmp/index.html; exec httpd -f -p 127.0.0.1:8080 -h /tmp"
    st.must_apply(
        document("Sandbox", "shared", {"network": {"mode": "none"}, "runtime": "runc-v2"}),
        st.container("serves", serving, sandbox="shared"),
        st.container("asks", "sleep 1000", sandbox="shared"),
    )
    ask = ("exec", "asks", "--", "wget", "-qO-", "http://127.0.0.1:8080/")
    eventually(lambda: st.node.cli(*ask).stdout == "hello\n", "it answers")
    st.delete("container/serves", "container/asks", "sandbox/shared")


BAD = {
    "dies": ("echo 'no such configuration' >&2; exit 1", "no such configuration"),
    "nonsense": ("echo what?", "where its address was due"),
    "smoke": ("""echo '{"version": 3, "address": "unix:///x", "protocol": "smoke"}'""", "spoken to by 'smoke'"),
    "newer": ("""echo '{"version": 9, "address": "unix:///x", "protocol": "ttrpc"}'""", "version 9 of the shim API"),
    "open": ("echo unix:///etc/passwd", "which the shim calls its socket"),
    "hangs": ("sleep 1000", "did not say within 20 s"),
}
PLAYED = {
    "garbage": (("--garbage",), "containerd-shim-garbage-v1 answered with nonsense"),
    "garbage-grpc": (("--protocol", "grpc", "--garbage"), "went away in the middle of a call"),
    "killed": (("--dies", "Create"), "went away in the middle of a call"),
    "killed-grpc": (("--protocol", "grpc", "--dies", "Create"), "went away in the middle of a call"),
    "boxed": (("--protocol", "grpc", "--sandboxes"), ""),
}


@pytest.fixture
def configured(st: Stage) -> Iterator[None]:
    """A node whose configuration has a runtime for each bad shim, and one whose shim makes sandboxes."""
    config = json.loads((path := st.node.place.folder / "config.yaml").read_text())
    programs = {name: st.files / f"containerd-shim-{name}-v1" for name in (*BAD, *PLAYED)}
    for name, (text, _) in BAD.items():
        programs[name].write_text(f"#!/bin/sh\n{text}\n")
        programs[name].chmod(0o755)
    for name, (plays, _) in PLAYED.items():
        played_shim.write(programs[name], st.files / f"{name}-sockets", *plays)
    runtimes: dict[str, Any] = {name: {"sandboxer": "shim", "path": str(at)} for name, at in programs.items()}
    runtimes["boxed"]["options"] = {"sandbox": "service"}
    path.write_text(json.dumps(config | {"runtimes": runtimes}))
    st.node.stop()
    st.node.spawn("agent")
    yield
    path.write_text(json.dumps(config))


@pytest.mark.usefixtures("configured")
def test_whatever_a_shim_does_wrong_is_told_with_what_to_do_and_when_and_its_neighbour_is_not_touched(
    st: Stage,
) -> None:
    tells(st, *(name for name in (*BAD, *PLAYED) if name not in ("hangs", "boxed")))


@pytest.mark.soak
@pytest.mark.usefixtures("configured")
def test_a_shim_that_hangs_at_its_start_is_told_too(st: Stage) -> None:
    tells(st, "hangs")


def tells(st: Stage, *runtimes: str) -> None:
    """Containers of bad runtimes say what is wrong; a good one beside them goes on."""
    st.must_apply(st.container("good", "sleep 1000"))
    pid = st.pid("good")
    st.submit(*(st.container(name, "true", runtime=name) for name in runtimes))
    for name in runtimes:
        key, words = f"container/{name}", (BAD | PLAYED)[name][1]

        def told(key: str = key, words: str = words) -> Mapping[str, Any] | None:
            error = st.status(key).get("lastError")
            return error if error and words in error["message"] else None

        error = eventually(told, f"{key} says: {words}", seconds=120)
        assert error["phase"] == "creating", (name, error)
        assert error["hint"], (name, error)
        assert st.condition(key, "Ready")["status"] == "False"
        retried = lambda key=key: st.status(key).get("nextRetryAt") or st.condition(key, "Stalled")  # noqa: E731
        eventually(retried, f"{key} is tried again, or is stalled")
    assert st.pid("good") == pid
    assert st.exec("good", "echo there") == "there\n"
    st.delete("container/good", *(f"container/{name}" for name in runtimes))


@pytest.mark.usefixtures("configured")
def test_a_shim_that_makes_sandboxes_has_all_its_containers_and_is_made_anew_when_it_is_killed(st: Stage) -> None:
    box = {"network": {"mode": "none"}, "runtime": "boxed"}
    names = ("container/first", "container/second")
    st.must_apply(
        document("Sandbox", "shared", box),
        st.container("first", "sleep 1000", sandbox="shared"),
        st.container("second", "sleep 1000", sandbox="shared"),
        st.container("beside", "sleep 1000"),
    )
    before, pid = st.status("sandbox/shared")["pid"], st.pid("beside")
    assert st.exec("first", "echo there") == "there\n"
    pids = [st.pid("first"), st.pid("second")]
    st.node.stop()
    st.node.spawn("agent")
    eventually(lambda: [st.pid("first"), st.pid("second")] == pids, "nothing was started anew")
    os.kill(before, signal.SIGKILL)
    eventually(lambda: st.status("sandbox/shared").get("pid") not in (None, before), "a new shim", seconds=60)
    for name in ("first", "second"):
        eventually(lambda name=name: st.node.cli("exec", name, "--", "true").returncode == 0, f"{name} runs again", 60)
    assert st.pid("beside") == pid
    st.delete(*names, "container/beside", "sandbox/shared")
