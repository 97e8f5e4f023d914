"""An OTLP/HTTP receiver on loopback that reads what it gets by OpenTelemetry's own definitions (opentelemetry-proto).

It can also be a bad one: `answer` is called with the handler instead of the usual 200.
"""

import gzip
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

MESSAGES: Mapping[str, Any] = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}


@dataclass(frozen=True, slots=True)
class Got:
    """One span as it arrived."""

    name: str
    trace: str
    id: str
    parent: str
    attributes: Mapping[str, Any]
    events: tuple[str, ...]
    links: tuple[str, ...]
    failed: bool
    seconds: float


@dataclass(slots=True)
class Collector:
    """Use it as a block; `url` is the endpoint. `raw` is every body as it came, unpacked. `tls`: chain and key."""

    answer: Callable[[BaseHTTPRequestHandler], None] | None = None
    tls: tuple[Path, Path] | None = None
    requests: list[tuple[str, Mapping[str, str], Any]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    asked: int = 0
    _server: Any = None

    def __enter__(self) -> Self:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._take(self)

            def log_message(self, format: str, *args: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        if self.tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.handle_error = lambda request, client_address: None
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """The endpoint for OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked += 1
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        if self.answer is not None:
            self.answer(handler)
            return
        if handler.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        message = MESSAGES[handler.path]()
        if handler.headers["Content-Type"] == "application/json":
            Parse(_with_base64(body), message)
        else:
            message.ParseFromString(body)
        self.raw.append(body)
        self.requests.append((handler.path, dict(handler.headers), message))
        handler.send_response(200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def _of(self, path: str) -> Iterator[Any]:
        return (message for asked, _, message in list(self.requests) if asked == path)

    def spans(self) -> list[Got]:
        """Every span so far, as it arrived."""
        return [
            _got(span)
            for message in self._of("/v1/traces")
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def resources(self) -> list[Mapping[str, Any]]:
        """The resource of every request about spans."""
        return [_plain(of.resource.attributes) for message in self._of("/v1/traces") for of in message.resource_spans]

    def _metrics(self) -> Iterator[Any]:
        return (
            metric
            for message in self._of("/v1/metrics")
            for resource in message.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        )

    def metrics(self) -> Mapping[str, Any]:
        """The newest of each metric, as a protobuf message, by name."""
        return {metric.name: metric for metric in self._metrics()}

    def most(self) -> Mapping[str, float]:
        """The highest sum over the points of each metric that any process told."""
        found: dict[str, float] = {}
        for metric in self._metrics():
            total = sum(value for _, value in points(metric))
            found[metric.name] = max(total, found.get(metric.name, total))
        return found

    def await_spans(self, enough: Callable[[list[Got]], Any], what: str, seconds: float = 20.0) -> list[Got]:
        """The spans once they satisfy `enough`; fails the test after `seconds`."""
        until(lambda: enough(self.spans()), what, seconds, lambda: sorted({span.name for span in self.spans()}))
        return self.spans()


def until(look: Callable[[], Any], what: str, seconds: float = 15.0, seen: Callable[[], Any] = str) -> None:
    """Wait until `look` is true; fails the test, with what is `seen`, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}; seen: {seen()}"
        time.sleep(0.02)


def points(metric: Any) -> list[tuple[Mapping[str, Any], float]]:
    """The attributes and the value (a histogram's count) of each point of a metric."""
    data = getattr(metric, metric.WhichOneof("data"))
    return [(_plain(point.attributes), _value(point)) for point in data.data_points]


def _value(point: Any) -> float:
    if hasattr(point, "bucket_counts"):
        assert sum(point.bucket_counts) == point.count, "a histogram's buckets hold all that was counted"
        return float(point.count)
    return float(getattr(point, point.WhichOneof("value")))


def _plain(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}


def _got(span: Any) -> Got:
    return Got(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        _plain(span.attributes),
        tuple(event.name for event in span.events),
        tuple(link.trace_id.hex() for link in span.links),
        span.status.code == 2,
        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
    )


def _with_base64(body: bytes) -> str:
    """OTLP's JSON writes ids as hex where protobuf's own JSON has base64; everything else is the same."""
    import base64
    import json

    def turned(value: Any) -> Any:
        if isinstance(value, list):
            return [turned(one) for one in value]
        if isinstance(value, dict):
            ids = ("traceId", "spanId", "parentSpanId")
            return {
                name: base64.b64encode(bytes.fromhex(one)).decode() if name in ids else turned(one)
                for name, one in value.items()
            }
        return value

    return json.dumps(turned(json.loads(body)))
