"""`stop`, `start` and `restart`: with an agent on the node and without."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.workloads import Stage, eventually, stage
from tests.registry import Registry

pytestmark = pytest.mark.root

IDLE = "sleep 1000"


@pytest.fixture(scope="module", params=["agent", "alone"])
def st(registry: Registry, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """One node for the module: with an agent, and with one-shot engines only."""
    with stage(registry, agent=request.param == "agent") as made:
        yield made


def ok(st: Stage, *words: str) -> str:
    done = st.node.cli(*words, "--timeout", "30s")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_container_is_stopped_shown_to_be_so_and_started_again(st: Stage) -> None:
    st.must_apply(st.container("web", IDLE))
    before = st.pid("web")
    assert "container/web: Stopped" in ok(st, "stop", "web", "--for", "2h", "--reason", "a new disk")
    status = st.status("container/web")
    assert (status["state"], status["reason"]) == ("Stopped", "StoppedByHand")
    for words in (("describe", "container", "web"), ("why", "container/web"), ("status",), ("get", "containers")):
        said = st.node.cli(*words).stdout
        assert "StoppedByHand" in said or "a new disk" in said, words
    assert "a new disk" in st.node.cli("why", "container/web").stdout
    st.must_apply(st.container("web", IDLE))
    assert st.status("container/web")["state"] == "Stopped"
    assert "local" not in st.there("container/web").spec
    assert "container/web: Running" in ok(st, "start", "web")
    assert st.pid("web") != before
    st.delete("container/web")


def test_a_restart_makes_one_more_attempt(st: Stage) -> None:
    st.must_apply(st.container("again", IDLE))
    before = st.pid("again")
    first = st.status("container/again")["snapshot"]
    assert "container/again: Running" in ok(st, "restart", "again", "--reason", "leaks")
    assert st.pid("again") != before
    assert st.status("container/again")["snapshot"].rsplit("-", 1) == [first.rsplit("-", 1)[0], "2"]
    assert st.status("container/again")["restarts"] == 0
    st.delete("container/again")


def test_a_container_that_is_not_there_cannot_be_stopped(st: Stage) -> None:
    for word in ("stop", "start", "restart"):
        done = st.node.cli(word, "nobody")
        assert (done.returncode, "there is no container/nobody" in done.stderr) == (1, True)


def test_a_stop_that_takes_too_long_is_a_time_out(st: Stage) -> None:
    deaf = st.container("deaf", "trap '' TERM; sleep 1000 & wait; wait; sleep 1000", stop={"grace": "1h"})
    st.must_apply(deaf)
    st.pid("deaf")
    assert st.node.cli("stop", "deaf", "--timeout", "1s").returncode == 3
    st.must_apply(st.container("deaf", "trap '' TERM; sleep 1000 & wait; wait; sleep 1000"), options=("--no-wait",))
    st.delete("container/deaf")


def test_a_stop_runs_out(st: Stage) -> None:
    st.must_apply(st.container("short", IDLE))
    ok(st, "stop", "short", "--for", "3s")
    assert st.status("container/short")["state"] == "Stopped"
    if not st.node.running:
        eventually(
            lambda: st.apply(st.container("short", IDLE)) and "stop" not in st.there("container/short").local, ""
        )
    eventually(lambda: st.status("container/short")["state"] == "Running", "it runs again")
    st.delete("container/short")
