"""A whole run told by OTLP: agent, registry, runc; and what is said of it when nobody listens."""

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import git_server
from tests.conftest import Node
from tests.e2e.workloads import document, eventually
from tests.fakes.collector import Collector, Got, points, until
from tests.registry import Registry

pytestmark = pytest.mark.root

CANARY = "hunter2-canary"
QUICK: Mapping[str, str] = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_METRIC_EXPORT_INTERVAL": "200"}


def manifest(folder: Path, *documents: dict[str, Any]) -> Path:
    path = folder / "all.yaml"
    path.write_text("---\n".join(json.dumps(one) + "\n" for one in documents))
    return path


def container(registry: Registry, script: str = "sleep 1000", **spec: Any) -> dict[str, Any]:
    whole = {
        "image": f"{registry.host}/busybox:latest",
        "command": ["sh", "-c", script],
        "network": {"mode": "none"},
        "stop": {"signal": "KILL"},
        **spec,
    }
    return document("Container", "web", whole)


def above(spans: list[Got], span: Got) -> list[str]:
    """The names from a span's parent up to the root."""
    by_id = {one.id: one for one in spans}
    names = []
    while span.parent:
        assert span.parent in by_id, f"{span.name} hangs on a span that was never sent"
        span = by_id[span.parent]
        names.append(span.name)
    return names


def test_one_trace_goes_from_apply_to_the_started_container_over_processes_and_tells_no_secret(
    node: Node, registry: Registry, tmp_path: Path
) -> None:
    secret = document("Secret", "login", {"stringData": {"token": CANARY}})
    env = [
        {"name": "PLAIN", "value": CANARY},
        {"name": "TOKEN", "valueFrom": {"secret": {"name": "login", "key": "token"}}},
    ]
    path = manifest(tmp_path, secret, container(registry, env=env))
    outer = f"00-{'a' * 32}-{'b' * 16}-01"
    with Collector() as collector:
        told = {**QUICK, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_EXPORTER_OTLP_HEADERS": f"key={CANARY}"}
        node.spawn("agent", env=told)
        done = node.cli("apply", "-f", path, env={**told, "TRACEPARENT": outer})
        assert done.returncode == 0, done.stdout + done.stderr
        collector.await_spans(lambda found: any(one.name == "apply" for one in found), "apply ends")
        spans = collector.await_spans(lambda found: any(one.name == "container.start" for one in found), "the start")
        gauges = ("reconciler.objects.count", "reconciler.queue.depth", "system.filesystem.usage")
        until(lambda: _ready(collector.metrics(), "Container") == 1, "the gauge says that it is ready")
        metrics, most = collector.metrics(), collector.most()
        node.cli("delete", "container", "web", env=told)
        node.stop()
        spans = collector.spans()
        bodies = b"".join(collector.raw)
    first = {
        name: next(one for one in spans if one.name == name)
        for name in (
            "apply",
            "image.pull",
            "image.fetch_layer",
            "image.unpack_layer",
            "sandbox.create",
            "container.prepare",
            "container.create",
            "container.start",
        )
    }
    assert first["apply"].parent == "b" * 16
    assert {one.trace for one in first.values()} == {"a" * 32}, "all in the trace that apply was called in"
    inside = [one for one in spans if one.id != first["apply"].id]
    rooted = [*inside, Got("apply", "", first["apply"].id, "", {}, (), (), False, 0.0)]
    assert above(rooted, first["container.start"]) == ["reconcile", "apply"]
    assert above(rooted, first["image.pull"]) == ["reconcile", "apply"]
    assert above(rooted, first["image.fetch_layer"])[-3:] == ["image.pull", "reconcile", "apply"]
    assert above(rooted, first["image.unpack_layer"])[-3:] == ["image.pull", "reconcile", "apply"]
    pull, start = first["image.pull"], first["container.start"]
    assert pull.attributes["server.address"].startswith("127.0.0.1:")
    assert pull.attributes["reconciler.transfer.fetched"] >= pull.attributes["reconciler.transfer.size"] > 0
    assert pull.attributes["oci.manifest.digest"].startswith("sha256:")
    assert start.attributes["container.id"].startswith("web-")
    look = next(one for one in spans if one.id == start.parent)
    assert (look.attributes["reconciler.object.kind"], look.attributes["reconciler.object.name"]) == (
        "Container",
        "web",
    )
    assert look.events == ("observed", "planned")
    assert first["apply"].attributes["reconciler.objects"] == 2
    assert set(gauges) <= set(metrics)
    for name in ("reconciler.transfer.fetched", "reconciler.store.commit.duration", "reconciler.queue.latency"):
        assert most[name] > 3, name
    assert CANARY.encode() not in bodies


def _ready(metrics: Mapping[str, Any], kind: str) -> float:
    found = points(metrics["reconciler.objects.count"]) if "reconciler.objects.count" in metrics else []
    want = {"reconciler.object.kind": kind, "reconciler.object.state": "ready"}
    return next((value for attributes, value in found if attributes == want), 0.0)


def test_what_happens_by_itself_is_a_trace_of_its_own_that_names_the_one_that_asked(
    node: Node, registry: Registry, tmp_path: Path
) -> None:
    path = manifest(tmp_path, container(registry, restart={"policy": "Always"}))
    with Collector() as collector:
        told = {**QUICK, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        node.spawn("agent", env=told)
        assert node.cli("apply", "-f", path, env=told).returncode == 0
        first = collector.await_spans(lambda found: [one for one in found if one.name == "container.start"], "a start")
        asked = next(one for one in first if one.name == "container.start").trace
        os.kill(json.loads(node.cli("get", "container", "web", "-o", "json").stdout)["status"]["pid"], signal.SIGKILL)
        starts = collector.await_spans(
            lambda found: len([one for one in found if one.name == "container.start"]) >= 2, "it starts again"
        )
        until(lambda: "reconciler.container.restarts" in collector.metrics(), "a restart is counted")
        exits = points(collector.metrics()["reconciler.container.exits"])
        node.cli("delete", "container", "web")
        node.stop()
        spans = collector.spans()
    again = [one for one in starts if one.name == "container.start"][1]
    assert again.trace != asked
    roots = [one for one in spans if one.trace == again.trace and not one.parent]
    assert [root.links for root in roots] == [(asked,)], "one root, with a link to who asked for it"
    assert above(spans, again)[-1] == "reconcile"
    assert exits[0][0] == {"container.name": "web", "reconciler.reason": "Error"}


@pytest.mark.skipif(bool(git_server.missing_tools()), reason=f"not installed: {git_server.missing_tools()}")
def test_one_trace_goes_from_a_commit_in_git_to_the_started_container(
    node: Node, registry: Registry, tmp_path: Path
) -> None:
    with Collector() as collector, git_server.HttpGit(tmp_path) as server:
        told = {**QUICK, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        repository = git_server.Repository.create(server.folder / "edge.git")
        repository.commit({"web.yaml": json.dumps(container(registry))})
        node.spawn("agent", env=told)
        until(lambda: "agent running" in node.cli("status", "--oneline").stdout, "the agent runs")
        add = ("source", "add", "edge", "--git", server.url("edge.git"), "--interval", "1h", "--timeout", "40s")
        done = node.cli(*add)
        assert done.returncode == 0, done.stdout + done.stderr
        second = repository.commit({"web.yaml": json.dumps(container(registry, "sleep 2000"))})
        assert node.cli("source", "sync", "edge", "--timeout", "40s").returncode == 0
        spans = collector.await_spans(lambda found: len(named(found, "container.start")) == 2, "both are started")
        until(lambda: collector.most().get("reconciler.source.revisions") == 2, "both are counted")
        node.cli("delete", "source", "edge", "--timeout", "30s")
        node.stop()
        spans = collector.spans()
    first, start = named(spans, "container.start")[:2]
    apply = next(one for one in named(spans, "source.apply") if one.trace == start.trace)
    assert first.trace != start.trace, "each revision has a trace of its own"
    assert apply.attributes["vcs.ref.head.revision"] == second
    assert apply.attributes["reconciler.source.name"] == "edge"
    assert above(spans, start)[:2] == ["reconcile", "source.apply"]
    assert set(above(spans, start)[2:]) == {"reconcile"}, "and that hangs on the look that fetched it"
    whole = [one.name for one in spans if one.trace == start.trace]
    assert {"source.fetch", "source.load", "source.apply", "container.prepare", "container.create"} <= set(whole)


def named(spans: list[Got], name: str) -> list[Got]:
    """The spans of that name, as they came."""
    return [one for one in spans if one.name == name]


def test_a_failure_is_told_by_its_category_and_a_one_shot_apply_tells_all_by_itself(
    node: Node, registry: Registry, tmp_path: Path
) -> None:
    path = manifest(tmp_path, document("Image", "gone", {"ref": f"{registry.host}/{CANARY[:6]}:9"}))
    with Collector() as collector:
        told = {**QUICK, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        assert node.cli("apply", "-f", path, "--timeout", "20s", env=told).returncode == 1
        spans = collector.spans()
        retries = points(collector.metrics()["reconciler.retries"])
    pull = next(one for one in spans if one.name == "image.pull")
    assert pull.failed
    assert pull.attributes["error.type"] == "not found"
    assert above(spans, pull) == ["reconcile", "apply"]
    assert retries[0][0] == {
        "reconciler.object.kind": "Image",
        "reconciler.phase": "fetching",
        "error.type": "not found",
    }


def test_with_telemetry_off_an_apply_with_its_own_engine_never_loads_opentelemetry(
    node: Node, registry: Registry, tmp_path: Path
) -> None:
    path = manifest(tmp_path, container(registry))
    done = node.cli("apply", "-f", path, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0, done.stdout
    assert "core.telemetry" in done.stderr, "imports were listed"
    assert "opentelemetry" not in done.stderr
    assert "core.otlp" not in done.stderr
    objects = eventually(lambda: json.loads(node.cli("get", "containers", "-o", "json").stdout)["items"], "objects")
    assert "trace" not in json.dumps(objects)
    node.cli("delete", "container", "web")
