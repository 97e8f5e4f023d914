"""Telemetry against a real receiver, and against those that are gone, slow or hostile."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from core import telemetry
from core.clock import SystemClock
from core.errors import NotFound
from core.signals import ATTRIBUTES, METRICS, SPANS
from core.telemetry_settings import read_settings
from tests.fakes.collector import Collector, points, until
from tests.git_server import make_certificate
from tests.registry import free_port

QUICK: Mapping[str, str] = {"OTEL_BSP_SCHEDULE_DELAY": "20", "OTEL_METRIC_EXPORT_INTERVAL": "100"}
CANARY = "hunter2-canary"


@pytest.fixture(autouse=True)
def _off_again() -> Iterator[None]:
    yield
    telemetry.shutdown(2.0)


def turn_on(url: str, **more: str) -> None:
    """Telemetry to `url`, with variables in small letters."""
    environment = {**QUICK, "OTEL_EXPORTER_OTLP_ENDPOINT": url, **{k.upper(): v for k, v in more.items()}}
    assert telemetry.configure(environment, SystemClock(), service_version="7")


def test_a_tree_of_spans_arrives_with_its_names_attributes_events_and_links() -> None:
    with Collector() as collector:
        turn_on(collector.url)
        with telemetry.span("apply", objects=2) as top:
            with telemetry.span("reconcile", kind="Container", name="web", generation=3) as inner:
                inner.mark("planned")
                telemetry.note(outcome="Settled")
            other = top.parent
        with telemetry.span("reconcile", parent="", link=other):
            pass
        spans = collector.await_spans(lambda found: len(found) == 3, "three spans")
    child, above, linked = spans
    assert (above.name, above.parent, above.attributes) == ("apply", "", {"reconciler.objects": 2})
    assert (child.trace, child.parent, child.events) == (above.trace, above.id, ("planned",))
    assert child.attributes == {
        "reconciler.object.kind": "Container",
        "reconciler.object.name": "web",
        "reconciler.object.generation": 3,
        "reconciler.outcome": "Settled",
    }
    assert linked.trace != above.trace
    assert linked.links == (above.trace,)
    assert collector.resources()[0]["service.name"] == "reconciler"
    assert collector.resources()[0]["service.version"] == "7"


def test_a_trace_goes_on_by_a_text_in_another_thread_and_in_another_process() -> None:
    with Collector() as collector:
        turn_on(collector.url)
        with telemetry.span("apply") as top:
            text = top.parent
            worker = threading.Thread(
                target=lambda: telemetry.span("image.pull", parent=text).__enter__().__exit__(None, None, None)
            )
            worker.start()
            worker.join()
        program = f"""
import os
from core import telemetry
from core.clock import SystemClock
telemetry.configure(os.environ, SystemClock())
with telemetry.span("reconcile", parent={text!r}):
    pass
telemetry.shutdown()
"""
        subprocess.run(
            [sys.executable, "-c", program], check=True, env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}, timeout=30
        )
        spans = collector.await_spans(lambda found: len(found) == 3, "three spans")
    by_name = {span.name: span for span in spans}
    assert {span.trace for span in spans} == {by_name["apply"].trace}
    assert by_name["image.pull"].parent == by_name["reconcile"].parent == by_name["apply"].id


@pytest.mark.parametrize(
    "text", ["nonsense", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "01-" + "a" * 32 + "-x", CANARY]
)
def test_a_traceparent_that_is_none_begins_a_new_trace(text: str) -> None:
    with Collector() as collector:
        turn_on(collector.url)
        with telemetry.span("apply", parent=text):
            pass
        (span,) = collector.await_spans(bool, "a span")
    assert span.parent == ""


def test_metrics_of_every_instrument_arrive_with_the_attributes_they_may_have() -> None:
    with Collector() as collector:
        turn_on(collector.url)
        telemetry.count("reconciler.container.restarts", container_name="web", name="left out")
        telemetry.count("reconciler.container.restarts", 2, container_name="web")
        telemetry.measure("reconciler.reconcile.duration", 0.3, kind="Image", outcome="Settled")
        telemetry.observe("reconciler.queue.depth", lambda: [(4, {"lane": "quick"}), (0.5, {"lane": "slow"})])
        until(lambda: "reconciler.queue.depth" in collector.metrics(), "metrics")
        found = collector.metrics()
    assert points(found["reconciler.container.restarts"]) == [({"container.name": "web"}, 3)]
    assert points(found["reconciler.reconcile.duration"]) == [
        ({"reconciler.object.kind": "Image", "reconciler.outcome": "Settled"}, 1)
    ]
    assert points(found["reconciler.queue.depth"]) == [
        ({"reconciler.queue.lane": "quick"}, 4),
        ({"reconciler.queue.lane": "slow"}, 0.5),
    ]
    assert found["reconciler.reconcile.duration"].unit == "s"


def test_no_text_that_is_not_on_the_list_leaves_the_process() -> None:
    with Collector() as collector:
        turn_on(collector.url, otel_exporter_otlp_headers=f"api-key={CANARY}")
        telemetry.count("reconciler.container.restarts", password=CANARY)
        with pytest.raises(NotFound), telemetry.span("apply", password=CANARY, env=CANARY, name="x" * 5000):
            raise NotFound(f"https://user:{CANARY}@registry is gone", advice=CANARY)
        with pytest.raises(ValueError), telemetry.span(CANARY):
            raise ValueError(CANARY)
        spans = collector.await_spans(lambda found: len(found) == 2, "two spans")
        until(lambda: "reconciler.container.restarts" in collector.metrics(), "the counter")
        bodies = b"".join(collector.raw)
        headers = [sent for _, sent, _ in collector.requests]
    assert CANARY.encode() not in bodies
    assert all(sent["api-key"] == CANARY for sent in headers), "a header does go to the collector"
    assert (spans[0].failed, spans[0].attributes["error.type"]) == (True, "not found")
    assert len(spans[0].attributes["reconciler.object.name"]) == 256
    assert (spans[1].name, spans[1].attributes["error.type"]) == ("other", "ValueError")


def test_json_and_gzip_say_the_same_as_plain_protobuf() -> None:
    found = []
    for more in ({}, {"otel_exporter_otlp_protocol": "http/json"}, {"otel_exporter_otlp_compression": "gzip"}):
        with Collector() as collector:
            turn_on(collector.url, **more)
            with telemetry.span("apply", objects=-1, fetched=2.5, name="Zoë") as top:
                top.mark("planned")
            telemetry.measure("reconciler.store.commit.duration", 0.01)
            (span,) = collector.await_spans(bool, "a span")
            until(lambda: "reconciler.store.commit.duration" in collector.metrics(), "a metric")
            telemetry.shutdown()
            metric = collector.metrics()["reconciler.store.commit.duration"]
            found.append((span.name, span.attributes, span.events, points(metric)))
    assert found[0] == found[1] == found[2]
    assert found[0][1]["reconciler.objects"] == -1


def test_a_collector_behind_tls_is_believed_by_the_authority_that_is_named_and_by_no_other(tmp_path: Path) -> None:
    made = make_certificate(tmp_path / "tls")
    with Collector(tls=(made.chain, made.key)) as collector:
        turn_on(collector.url)
        with telemetry.span("apply", name="to a stranger"):
            pass
        telemetry.shutdown()
        assert collector.spans() == []
        turn_on(collector.url, otel_exporter_otlp_certificate=str(made.ca))
        with telemetry.span("apply"):
            pass
        (span,) = collector.await_spans(bool, "a span")
    assert "reconciler.object.name" not in span.attributes


def test_a_span_that_was_dropped_is_never_sent() -> None:
    with Collector() as collector:
        turn_on(collector.url)
        with telemetry.span("reconcile") as look:
            look.drop()
        with telemetry.span("apply"):
            pass
        assert [span.name for span in collector.await_spans(bool, "a span")] == ["apply"]


def _never(handler: BaseHTTPRequestHandler) -> None:
    handler.rfile.read(1)  # until they hang up


def _endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 65536)


def _busy(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(503)
    handler.send_header("Retry-After", "3600")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def _elsewhere(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(307)
    handler.send_header("Location", "/v1/traces")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


BAD = {"never": _never, "endless": _endless, "busy": _busy, "elsewhere": _elsewhere, "gone": None}


@pytest.mark.parametrize("how", BAD)
def test_a_collector_that_is_gone_slow_or_hostile_holds_nobody_up_and_what_is_dropped_is_counted(how: str) -> None:
    answer = BAD[how]
    with Collector(answer or _never) as bad, Collector() as good:
        url = bad.url if answer else f"http://127.0.0.1:{free_port()}"
        turn_on(
            good.url,
            otel_exporter_otlp_traces_endpoint=f"{url}/v1/traces",
            otel_exporter_otlp_traces_timeout="300",
            otel_bsp_max_queue_size="50",
        )
        began = time.monotonic()
        for _ in range(3000):
            with telemetry.span("reconcile", kind="Image"):
                pass
        told = time.monotonic() - began
        if how != "endless":  # which takes them all, and says so without an end
            until(lambda: _dropped(good) > 1000, "dropped spans are counted")
        assert told < 3.0, "3,000 spans cost what they cost, whatever the collector does"
        began = time.monotonic()
        telemetry.shutdown(1.0)
        assert time.monotonic() - began < 1.5


def _dropped(collector: Collector) -> float:
    metric = collector.metrics().get("reconciler.telemetry.dropped")
    return sum(value for _, value in points(metric)) if metric is not None else 0.0


def test_while_it_is_off_nothing_is_loaded_no_thread_runs_and_a_span_costs_next_to_nothing() -> None:
    program = """
import json, os, sys, threading, time
from core import telemetry
from core.clock import SystemClock
on = telemetry.configure({"PATH": "/bin", "OTEL_SERVICE_NAME": "x"}, SystemClock())
best = 1.0
for _ in range(20):
    began = time.perf_counter()
    for _ in range(1000):
        with telemetry.span("reconcile", kind="Image", name="web") as look:
            look.note(outcome="Settled")
        telemetry.count("reconciler.retries", kind="Image")
    best = min(best, (time.perf_counter() - began) / 1000)
loaded = [name in sys.modules for name in ("opentelemetry", "core.otlp", "urllib3", "core.signals")]
print(json.dumps([on, telemetry.is_on(), any(loaded), threading.active_count(), best]))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    *said, seconds = json.loads(done.stdout)
    assert said == [False, False, False, 1]
    assert seconds < 5e-6, f"{seconds * 1e6:.1f} µs"


READINGS: Mapping[str, tuple[Mapping[str, str], Mapping[str, object]]] = {
    "nothing": ({}, {}),
    "disabled": ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, {}),
    "general": (
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"},
        {"traces": "http://c:4318/v1/traces", "metrics": "http://c:4318/v1/metrics"},
    ),
    "its own": (
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c/here"},
        {"traces": "https://c/here", "metrics": None},
    ),
    "no metrics": (
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_METRICS_EXPORTER": "none"},
        {"traces": "http://c:4318/v1/traces", "metrics": None},
    ),
    "grpc": (
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"},
        {"traces": "http://c:4317/v1/traces", "metrics": None},
    ),
    "no url": ({"OTEL_EXPORTER_OTLP_ENDPOINT": "c:4318"}, {}),
    "no such certificate": (
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/not/there"},
        {},
    ),
}


@pytest.mark.parametrize("case", READINGS)
def test_the_standard_variables_say_what_goes_where(case: str) -> None:
    environment, want = READINGS[case]
    found = read_settings(environment, endpoint=None, interval=60.0, who={})
    if not want:
        assert found is None
        return
    assert found is not None
    got = {"traces": found.traces, "metrics": found.metrics}
    assert {signal: target and target.url for signal, target in got.items()} == want


def test_variables_go_before_the_configuration_and_bad_ones_are_told_and_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_HEADERS": "a=1,broken,b=two%20words",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "a=2",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
        "OTEL_SERVICE_NAME": "edge",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=lost,site=S%C3%BCd",
        "OTEL_TRACES_SAMPLER": "traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.25",
        "OTEL_BSP_MAX_QUEUE_SIZE": "many",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_METRIC_EXPORT_INTERVAL": "",
    }
    found = read_settings(environment, endpoint="http://configured:4318", interval=30.0, who={"host_name": "n1"})
    assert found is not None
    assert found.traces is not None
    assert found.traces.url == "http://configured:4318/v1/traces"
    assert found.traces.headers == {"a": "2", "b": "two words"}
    assert (found.traces.timeout, found.delay, found.queue, found.interval) == (2.5, 0.1, 2048, 30.0)
    assert found.sampler == ("traceidratio", 0.25)
    assert found.resource == {"service.name": "edge", "host.name": "n1", "site": "Süd"}
    assert "OTEL_EXPORTER_OTLP_HEADERS" in caplog.text
    assert "OTEL_BSP_MAX_QUEUE_SIZE" in caplog.text


def test_a_sampler_that_takes_nothing_sends_no_span_and_says_so_to_those_who_go_on() -> None:
    with Collector() as collector:
        turn_on(collector.url, otel_traces_sampler="always_off")
        with telemetry.span("apply") as top:
            text = top.parent
        telemetry.shutdown()
        turn_on(collector.url)
        with telemetry.span("reconcile", parent=text), telemetry.span("image.pull"):
            pass
        with telemetry.span("apply"):
            pass
        spans = collector.await_spans(bool, "a span")
    assert int(text[-2:], 16) & 1 == 0, "not sampled, it says"
    assert [span.name for span in spans] == ["apply"]


def test_what_waits_is_sent_when_it_ends() -> None:
    with Collector() as collector:
        turn_on(collector.url, otel_bsp_schedule_delay="600000", otel_metric_export_interval="600000")
        with telemetry.span("apply"):
            pass
        telemetry.count("reconciler.container.restarts")
        telemetry.shutdown()
        assert [span.name for span in collector.spans()] == ["apply"]
        assert "reconciler.container.restarts" in collector.metrics()


def test_names_are_well_formed_and_metrics_use_known_attributes() -> None:
    for name in (*SPANS, *METRICS, *ATTRIBUTES.values()):
        assert name == name.lower().strip(".")
    assert len(set(ATTRIBUTES.values())) == len(ATTRIBUTES)
    for metric in METRICS.values():
        assert set(metric.attributes) <= set(ATTRIBUTES)
