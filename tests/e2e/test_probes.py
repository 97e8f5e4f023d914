"""Probes of real containers: not ready until they answer, ended when they do not, and no switch to what never does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.workloads import Stage, document, eventually, stage
from tests.registry import Registry

pytestmark = pytest.mark.root

FAST = {"every": "200ms", "timeout": "1s"}
SERVER = "mkdir -p /tmp/www; echo well >/tmp/www/healthz; while ! [ -e /tmp/go ]; do sleep 0.1; done; "
SERVER += "httpd -f -p 127.0.0.1:80 -h /tmp/www"


@pytest.fixture(scope="module")
def st(registry: Registry) -> Iterator[Stage]:
    """One node for the module."""
    with stage(registry) as made:
        made.must_apply(document("Image", "busybox", {"ref": made.image()}))  # so that none waits for it
        yield made


def probe(**how: Any) -> dict[str, Any]:
    return {**FAST, **how}


def ready(st: Stage, name: str) -> dict[str, Any]:
    """The condition Ready."""
    told = st.status(f"container/{name}").get("conditions", ())
    return next((one for one in told if one["type"] == "Ready"), {"status": "", "reason": "", "message": ""})


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("by-http", {"http": {"port": 80, "path": "/healthz"}}),
        ("by-tcp", {"tcp": {"port": 80}}),
        ("by-exec", {"exec": ["wget", "-qO-", "http://127.0.0.1/healthz"]}),
    ],
)
def test_a_container_is_ready_when_its_probe_says_so_and_apply_waits_for_it(
    st: Stage, name: str, how: dict[str, Any]
) -> None:
    web = st.container(name, SERVER, probes={"readiness": probe(**how)})
    done = st.apply(web, options=("--timeout", "4s"))
    assert done.returncode == 3, done.stdout + done.stderr
    assert "readiness probe" in done.stderr
    assert ready(st, name)["reason"] == "NotReady"
    st.exec(name, "touch /tmp/go")
    st.must_apply(web)
    assert ready(st, name)["status"] == "True"


def test_what_fails_its_liveness_probe_is_ended_and_started_again(st: Stage) -> None:
    alive = {"liveness": probe(exec=["test", "-e", "/tmp/alive"], failures=2)}
    st.must_apply(st.container("sick", "touch /tmp/alive; sleep 1000", probes=alive))
    st.exec("sick", "rm /tmp/alive")
    eventually(lambda: st.status("container/sick")["restarts"] == 1, "the restart")
    assert st.status("container/sick")["lastExit"]["reason"] == "Unhealthy"
    eventually(lambda: ready(st, "sick")["status"] == "True", "it is well again")
    assert "liveness probe failed 2 times (exec: exit code 1)" in st.node.cli("events").stdout


def test_a_startup_probe_comes_before_the_others_and_an_agent_that_is_new_asks_it_no_more(st: Stage) -> None:
    probes = {
        "startup": probe(exec=["test", "-e", "/tmp/up"], failures=100),
        "liveness": probe(exec=["test", "-e", "/tmp/up"], failures=1),
    }
    st.submit(st.container("slow", "sleep 1; touch /tmp/up; sleep 1000", probes=probes))
    eventually(lambda: ready(st, "slow")["status"] == "True", "it is up")
    pid = st.pid("slow")
    (agent,) = [one for one in st.node.running if one.poll() is None]
    agent.kill()
    agent.wait()
    st.node.spawn("agent")
    eventually(lambda: "the agent" in st.node.cli("status").stdout, "the next agent")
    assert st.there("container/slow").record["startedUp"] == 1
    eventually(lambda: ready(st, "slow")["status"] == "True", "it is still ready")
    assert (st.pid("slow"), st.status("container/slow")["restarts"]) == (pid, 0)


def test_a_change_that_never_becomes_ready_is_taken_back(st: Stage) -> None:
    check = {
        "readiness": probe(exec=["test", "-e", "/tmp/ok"]),
        "startup": probe(exec=["test", "-e", "/tmp/ok"], failures=2),
    }
    st.must_apply(st.container("shop", "touch /tmp/ok; sleep 1000", probes=check, env=[{"name": "V", "value": "1"}]))
    done = st.apply(st.container("shop", "sleep 1000", probes=check, env=[{"name": "V", "value": "2"}]))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "startup probe failed 2 times" in done.stderr
    eventually(lambda: st.exec("shop", "echo $V").strip() == "1", "the old one again")


def test_a_command_that_hangs_leaves_nothing_behind(st: Stage) -> None:
    hangs = {"readiness": {"exec": ["sleep", "500"], "every": "200ms", "timeout": "200ms", "failures": 1}}
    st.submit(st.container("hangs", "sleep 1000", probes=hangs))
    eventually(lambda: "took longer" in ready(st, "hangs")["message"], "the probe's limit")
    st.must_apply(st.container("hangs", "sleep 1000"))
    eventually(lambda: "sleep 500" not in st.exec("hangs", "ps"), "no sleeper is left")


def test_a_dependency_on_a_ready_container_waits_for_its_probe(st: Stage) -> None:
    db = st.container("db", SERVER, probes={"readiness": probe(tcp={"port": 80})})
    app = st.container("app", "sleep 1000", dependsOn=[{"container": "db", "condition": "Ready"}])
    st.submit(db, app)
    eventually(lambda: "DependencyNotMet" in str(st.status("container/app")), "it waits")
    st.exec("db", "touch /tmp/go")
    eventually(lambda: ready(st, "app")["status"] == "True", "it runs once db is ready")
