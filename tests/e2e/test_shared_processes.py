"""Containers of one sandbox that see each other's processes: `shareProcessNamespace: true`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.workloads import Stage, document, eventually, stage
from tests.registry import Registry

pytestmark = pytest.mark.root

SERVER = "while :; do sleep 0.1; done"


@pytest.fixture(scope="module")
def st(registry: Registry) -> Iterator[Stage]:
    """One node for the module."""
    with stage(registry) as made:
        yield made


def pair(st: Stage, name: str, runtime: str) -> int:
    """A sandbox with two containers; the number of its first process."""
    spec = {"runtime": runtime, "network": {"mode": "none"}, "shareProcessNamespace": True}
    st.must_apply(
        document("Sandbox", name, spec),
        st.container(f"{name}-a", SERVER, sandbox=name),
        st.container(f"{name}-b", SERVER, sandbox=name),
    )
    return pause(st, name)


def pause(st: Stage, name: str) -> int:
    """The number of the sandbox's first process."""
    return int(eventually(lambda: st.status(f"sandbox/{name}").get("pid"), "its first process is told"))


@pytest.mark.parametrize("runtime", ["runc", "crun", "runc-v2"])
def test_they_see_each_other_and_what_dies_is_reaped(st: Stage, runtime: str) -> None:
    name = f"pair-{runtime}"
    first = pair(st, name, runtime)
    assert st.exec(f"{name}-a", "cat /proc/1/comm") == "catatonit\n"
    space = os.readlink(f"/proc/{first}/ns/pid")
    assert {os.readlink(f"/proc/{st.pid(f'{name}-{one}')}/ns/pid") for one in "ab"} == {space}
    st.exec(f"{name}-a", "(sleep 0.01 &) ; sleep 0.3; ! grep -q '^State:.*Z' /proc/[0-9]*/status")
    st.delete(f"container/{name}-a", f"container/{name}-b", f"sandbox/{name}")
    eventually(lambda: not Path(f"/proc/{first}").exists(), "its first process is gone")


def test_they_outlive_the_agent_and_are_adopted_by_the_next(st: Stage) -> None:
    first = pair(st, "lasting", "runc")
    before = [st.pid(f"lasting-{one}") for one in "ab"]
    agent = st.node.running[-1]
    agent.kill()
    agent.wait()
    st.node.spawn("agent")
    st.must_apply(document("Volume", "after-restart", {}))
    assert [st.pid(f"lasting-{one}") for one in "ab"] == before
    assert pause(st, "lasting") == first


def test_when_the_first_process_is_killed_all_of_it_is_made_anew(st: Stage) -> None:
    first = pair(st, "fragile", "runc")
    before = [st.pid(f"fragile-{one}") for one in "ab"]
    os.kill(first, signal.SIGKILL)
    eventually(lambda: pause(st, "fragile") != first, "the sandbox is made anew")

    def again() -> bool:
        pids = [st.status(f"container/fragile-{one}").get("pid") for one in "ab"]
        return all(pids) and not set(pids) & set(before)

    eventually(again, "its containers run again")
    space = os.readlink(f"/proc/{pause(st, 'fragile')}/ns/pid")
    assert {os.readlink(f"/proc/{st.pid(f'fragile-{one}')}/ns/pid") for one in "ab"} == {space}
