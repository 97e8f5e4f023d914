"""Commands after the start and before the end of a container, on every runtime in which commands can be run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.workloads import Stage, document, eventually, stage
from tests.registry import Registry

pytestmark = pytest.mark.root

RUNTIMES = ("runc", "crun", "runc-v2")


@pytest.fixture(scope="module")
def st(registry: Registry) -> Iterator[Stage]:
    """One node for the module."""
    with stage(registry) as made:
        yield made


def shell(script: str, **more: object) -> dict[str, object]:
    """A hook that runs a script."""
    return {"exec": ["sh", "-c", script], **more}


def written(st: Stage, volume: str) -> Path:
    """Where the test's containers write what they do."""
    return st.node.root / "volumes" / volume / "story"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_hooks_run_in_the_container_after_its_start_and_before_its_end(st: Stage, runtime: str) -> None:
    name = f"told-{runtime}"
    script = "trap 'echo term >> /data/story; exit 0' TERM; echo up >> /data/story; while :; do sleep 0.05; done"
    hooks = {"postStart": shell("echo hello >> /data/story"), "preStop": shell("echo bye >> /data/story; sleep 0.5")}
    mounts = [{"path": "/data", "volume": name}]
    stop = {"signal": "TERM", "grace": "20s"}
    container = st.container(name, script, runtime=runtime, hooks=hooks, mounts=mounts, stop=stop)
    st.must_apply(document("Volume", name, {}), container)
    story = written(st, name)
    assert sorted(story.read_text().split()) == ["hello", "up"]  # the apply waited for the hook
    st.delete(f"container/{name}")
    assert story.read_text().split()[2:] == ["bye", "term"]


def test_a_container_is_not_ready_while_its_first_hook_runs(st: Stage) -> None:
    hook = shell("while ! test -e /tmp/go; do sleep 0.05; done")
    st.submit(st.container("waits", "sleep 1000", hooks={"postStart": hook}))
    key = "container/waits"
    eventually(lambda: st.condition(key, "Ready").get("reason") == "PostStart", "it waits for its hook")
    assert st.status(key)["state"] == "Running"
    st.exec("waits", "touch /tmp/go")
    eventually(lambda: st.condition(key, "Ready").get("status") == "True", "it is ready")


@pytest.mark.parametrize(
    ("name", "hook", "told"),
    [
        ("fails", shell("echo no such thing; exit 3"), "exit code 3"),
        ("hangs", shell("sleep 60", timeout="1s"), "longer"),
    ],
)
def test_a_first_hook_that_fails_or_hangs_ends_the_container_which_is_run_again(
    st: Stage, name: str, hook: dict[str, object], told: str
) -> None:
    st.submit(st.container(name, "sleep 1000", hooks={"postStart": hook}))
    eventually(lambda: int(st.status(f"container/{name}").get("restarts", 0)) >= 1, "it is run again")
    messages = [one.message for one in st.store.events() if one.key.name == name]
    assert any(message.startswith("postStart: ") and told in message for message in messages), messages


def test_the_last_hook_has_the_grace_and_no_more(st: Stage) -> None:
    hooks = {"preStop": shell("sleep 60")}
    st.must_apply(st.container("slow", "sleep 1000", hooks=hooks, stop={"signal": "TERM", "grace": "1s"}))
    began = time.monotonic()
    st.delete("container/slow")
    assert time.monotonic() - began < 15


def test_the_first_hook_is_not_run_again_by_the_next_agent(st: Stage) -> None:
    hooks = {"postStart": shell("echo hello >> /data/story")}
    mounts = [{"path": "/data", "volume": "once"}]
    st.must_apply(document("Volume", "once", {}), st.container("once", "sleep 1000", hooks=hooks, mounts=mounts))
    pid = st.pid("once")
    st.node.running[-1].kill()
    st.node.running[-1].wait()
    st.node.spawn("agent")
    st.must_apply(document("Volume", "afterwards", {}), st.container("next", "sleep 1000"))
    assert st.pid("once") == pid
    assert written(st, "once").read_text() == "hello\n"


def test_hooks_change_without_a_restart(st: Stage) -> None:
    st.must_apply(st.container("mended", "sleep 1000"))
    pid = st.pid("mended")
    st.must_apply(st.container("mended", "sleep 1000", hooks={"preStop": shell("true")}))
    assert st.pid("mended") == pid
