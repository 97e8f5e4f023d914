"""`gc` on a node: with an agent and without, killed in the middle, beside a transfer, and orphans."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.content.store import ContentStore
from core.digest import Digest
from reconciler.store.sqlite import open_store
from tests.conftest import Node
from tests.e2e.workloads import Stage, document, eventually, stage
from tests.registry import Registry

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def st(registry: Registry) -> Iterator[Stage]:
    """One node for the module."""
    with stage(registry) as made:
        yield made


def stray(node: Node, data: bytes = b"of nobody") -> str:
    """A blob that nothing names."""
    with ContentStore(node.root / "content").span() as span:
        span.put(Digest.of(data), data, lambda: None)
    return str(Digest.of(data))


def gc(node: Node, *options: str) -> dict[str, Any]:
    done = node.cli("gc", "-o", "json", *options)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def held(node: Node) -> set[str]:
    return set(map(str, ContentStore(node.root / "content").walk()))


def asked(node: Node) -> list[str]:
    """What the store still holds of requests."""
    store = open_store(node.root / "store.db", create=False)
    assert store is not None
    try:
        return [name for prefix in ("ask/", "answer/", "done/") for name in store.metas(prefix)]
    finally:
        store.close()


def test_the_agent_collects_what_nobody_needs_and_keeps_the_rest(st: Stage) -> None:
    st.must_apply(st.container("keeps", "sleep 1000"))
    before, pid = held(st.node), st.pid("keeps")
    blob = stray(st.node)
    dry = gc(st.node, "--dry-run")
    assert [one["digest"] for one in dry["blobs"]] == [blob]
    assert blob in held(st.node)
    assert gc(st.node)["blobs"] == dry["blobs"]
    assert held(st.node) == before
    assert gc(st.node)["bytes"] == 0
    assert st.pid("keeps") == pid
    assert asked(st.node) == []


def test_a_transfer_under_way_is_waited_for(st: Stage) -> None:
    blob = stray(st.node)
    with ContentStore(st.node.root / "content").span():
        waiting = st.node.spawn("gc")
        log = st.node.place.folder / "gc.log"
        eventually(lambda: "waiting for the transfers under way" in log.read_text(), "it says what it waits for")
        assert waiting.poll() is None
        assert blob in held(st.node)
    assert waiting.wait(20) == 0
    assert "Removed: 1 blob, 0 snapshots, 9 B; kept:" in log.read_text()
    assert blob not in held(st.node)


def test_a_command_that_is_killed_leaves_no_request(st: Stage) -> None:
    with ContentStore(st.node.root / "content").span():
        waiting = st.node.spawn("gc")
        eventually(lambda: asked(st.node), "it asks")
        waiting.kill()
        waiting.wait()
    eventually(lambda: st.node.cli("gc").returncode == 0 and not asked(st.node), "it is dropped")


def test_without_an_agent_the_command_does_it_and_an_agent_that_comes_takes_it_over(registry: Registry) -> None:
    with stage(registry, agent=False) as alone:
        alone.must_apply(document("Image", "web", {"ref": alone.image()}))
        before, blob = held(alone.node), stray(alone.node)
        assert [one["digest"] for one in gc(alone.node)["blobs"]] == [blob]
        assert held(alone.node) == before
        stray(alone.node)
        with ContentStore(alone.node.root / "content").span():
            waiting = alone.node.spawn("gc")
            eventually(lambda: "waiting" in (alone.node.place.folder / "gc.log").read_text(), "it waits")
            alone.node.spawn("agent")
            told = lambda: alone.node.cli("status", "--oneline").stdout  # noqa: E731
            eventually(lambda: "agent running" in told(), "the agent takes over")
            assert waiting.poll() is None
        assert waiting.wait(20) == 0
        assert held(alone.node) == before


def test_an_agent_that_is_killed_in_the_middle_is_followed_by_one_that_answers(registry: Registry) -> None:
    with stage(registry, agent=False) as made:
        agent = made.node.spawn("agent")
        eventually(lambda: "agent running" in made.node.cli("status", "--oneline").stdout, "it runs")
        blob = stray(made.node)
        with ContentStore(made.node.root / "content").span():
            waiting = made.node.spawn("gc")
            log = made.node.place.folder / "gc.log"
            eventually(lambda: "waiting" in log.read_text(), "the agent is at it")
            agent.send_signal(signal.SIGKILL)
            agent.wait()
            made.node.spawn("agent")
            assert waiting.poll() is None
        assert waiting.wait(30) == 0
        assert blob not in held(made.node)


def test_orphans_end_when_asked_for_and_not_before(registry: Registry, tmp_path: Path) -> None:
    with stage(registry, agent=False) as made:
        agent = made.node.spawn("agent")
        made.must_apply(made.container("lost", "sleep 1000"))
        pid = made.pid("lost")
        made.store.close()
        agent.terminate()
        agent.wait()
        for path in [*made.node.root.glob("store.db*"), made.node.root / "applied"]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        made.node.spawn("agent")
        eventually(lambda: "lost" in made.node.cli("get", "containers").stdout, "it is taken in")
        made.open()
        blob = stray(made.node)
        assert "orphans: container/lost" in made.node.cli("gc", "--dry-run", "--orphans").stderr
        os.kill(pid, 0)
        done = made.node.cli("gc", "--orphans", timeout=90)
        assert done.returncode == 0, done.stderr
        assert "Deleted: 1 object" in done.stdout
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert blob not in held(made.node)
