"""Containers under containerd's shim: the same as under runc, and what comes when a shim or the agent is killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest

from core.proc import ProcessId, boot_id
from tests.e2e import test_workloads_life as life
from tests.e2e.workloads import Stage, document, eventually, stage
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


def test_a_shim_that_speaks_nonsense_is_told_and_its_neighbour_is_not_touched(st: Stage) -> None:
    config = json.loads((path := st.node.place.folder / "config.yaml").read_text())
    bad = st.files / "containerd-shim-bad-v1"
    bad.write_text("#!/bin/sh\necho what?\n")
    bad.chmod(0o755)
    path.write_text(json.dumps(config | {"runtimes": {"bad": {"sandboxer": "shim", "path": str(bad)}}}))
    st.must_apply(st.container("good", "sleep 1000"))
    pid = st.pid("good")
    st.node.stop()
    st.node.spawn("agent")
    st.submit(st.container("odd", "true", runtime="bad"))
    told = eventually(
        lambda: "shim" in (said := st.condition("container/odd", "Ready").get("message", "")) and said, ""
    )
    assert "unix" in told or "address" in told
    assert st.pid("good") == pid
    st.delete("container/odd", "container/good")
