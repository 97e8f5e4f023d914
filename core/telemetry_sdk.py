"""Telemetry that is on: OpenTelemetry's SDK behind `core.telemetry`, and the one thread that sends.

Rules of this file: only it imports OpenTelemetry. Who tells something puts it in a bounded queue and goes on; a full
queue drops the newest and counts it. Only names of `core.signals` get through. Each try to send ends within the
target's timeout, and the thread never keeps the process alive.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from opentelemetry import context, trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import Metric as SdkMetric
from opentelemetry.sdk.metrics.export import MetricReader, MetricsData
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider, sampling
from opentelemetry.sdk.version import __version__ as sdk_version

from core import otlp
from core.clock import Clock
from core.signals import ATTRIBUTES, LONGEST, METRICS, SECONDS, SPANS, Instrument, Reading, Value, error_word
from core.telemetry_settings import Settings

_log: Final = logging.getLogger(__name__)
_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SCOPE: Final = "reconciler"
_CUMULATIVE: Final = 2
_DROPPED: Final = "reconciler.telemetry.dropped"


class Listener:
    """The backend of `core.telemetry`: makes spans and instruments, and has them sent."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        resource = Resource(
            {
                "telemetry.sdk.language": "python",
                "telemetry.sdk.name": "opentelemetry",
                "telemetry.sdk.version": sdk_version,
                **settings.resource,
            }
        )
        self._readings: dict[str, Reading] = {}
        reader = _Reader()
        views = [View(instrument_type=Histogram, aggregation=ExplicitBucketHistogramAggregation(SECONDS))]
        self._meters = MeterProvider([reader], resource, shutdown_on_exit=False, views=views)
        self._instruments = self._make_instruments()
        self._traced = settings.traces is not None
        self._post = Post(settings, clock, dict(resource.attributes), reader, self.add)
        tracers = TracerProvider(_sampler(*settings.sampler), resource, shutdown_on_exit=False)
        tracers.add_span_processor(self._post)
        self._tracer = tracers.get_tracer(_SCOPE)
        self._post.start()

    def _make_instruments(self) -> Mapping[str, Any]:
        meter = self._meters.get_meter(_SCOPE)
        made: dict[str, Any] = {}
        for name, metric in METRICS.items():
            match metric.instrument:
                case Instrument.COUNTER:
                    made[name] = meter.create_counter(name, metric.unit, metric.help)
                case Instrument.HISTOGRAM:
                    made[name] = meter.create_histogram(name, metric.unit, metric.help)
                case Instrument.GAUGE:
                    meter.create_observable_gauge(name, [self._callback(name)], metric.unit, metric.help)
        return made

    def _callback(self, name: str) -> Any:
        def read(_: CallbackOptions) -> Iterator[Observation]:
            if (reading := self._readings.get(name)) is not None:
                for value, attributes in reading():
                    yield Observation(value, _of_metric(name, attributes))

        return read

    def span(self, name: str, parent: str, link: str, attributes: Mapping[str, Value]) -> _Span:
        """Begin a span; see `core.telemetry.span`."""
        above, other = _context_of(parent), _context_of(link)
        made = self._tracer.start_span(
            name if name in SPANS else "other",
            trace.set_span_in_context(trace.NonRecordingSpan(above)) if above is not None else None,
            attributes=_known(attributes),
            links=[trace.Link(other)] if other is not None else None,
            record_exception=False,
            set_status_on_exception=False,
        )
        return _Span(made)

    def current(self) -> str:
        """This thread's traceparent."""
        return _traceparent(trace.get_current_span().get_span_context())

    def note(self, attributes: Mapping[str, Value]) -> None:
        """Add to this thread's span."""
        trace.get_current_span().set_attributes(_known(attributes))

    def add(self, name: str, amount: float, attributes: Mapping[str, Value]) -> None:
        """Add to a counter, or take a value into a histogram."""
        instrument = self._instruments[name]
        told = _of_metric(name, attributes)
        if isinstance(instrument, Counter):
            instrument.add(amount, told)
        else:
            instrument.record(amount, told)

    def observe(self, name: str, read: Reading) -> None:
        """Have a gauge read by `read`."""
        self._readings[name] = read

    def shutdown(self, within: float) -> None:
        """Send what waits, for at most `within` seconds."""
        self._post.stop(within)


class _Span:
    """A span of the SDK, entered and left in one thread."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._dropped = False
        self._token: Any = None

    @property
    def parent(self) -> str:
        """Its traceparent."""
        return _traceparent(self._span.get_span_context())

    def note(self, **attributes: Value) -> None:
        """Add attributes."""
        self._span.set_attributes(_known(attributes))

    def mark(self, event: str) -> None:
        """Add an event."""
        self._span.add_event(event)

    def fail(self, error: BaseException) -> None:
        """Status ERROR, with the error's word."""
        self._span.set_status(trace.StatusCode.ERROR)
        self._span.set_attribute(ATTRIBUTES["error"], error_word(error))

    def drop(self) -> None:
        """Never end it: what has not ended is never sent."""
        self._dropped = True

    def __enter__(self) -> Self:
        self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        context.detach(self._token)
        if error is not None:
            self.fail(error)
        if not self._dropped or error is not None:
            self._span.end()


class _Reader(MetricReader):
    """Keeps what was collected last."""

    data: MetricsData | None = None

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        self.data = metrics_data

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing to end."""


class Post(SpanProcessor):
    """The bounded queue of spans that have ended, and the thread that sends them, and metrics, to their targets."""

    def __init__(
        self, settings: Settings, clock: Clock, resource: Mapping[str, Any], reader: _Reader, add: Any
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._resource = resource
        self._reader = reader
        self._add = add
        self._ended: deque[ReadableSpan] = deque()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._failing: set[str] = set()
        targets = {"spans": settings.traces, "metrics": settings.metrics}
        self._senders = {
            signal: otlp.Sender(target, clock, self._stopping.wait) for signal, target in targets.items() if target
        }
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def start(self) -> None:
        """Start the thread; once."""
        self._thread.start()

    def on_end(self, span: ReadableSpan) -> None:
        """A span has ended: it waits to be sent, or is dropped. Never blocks on a collector."""
        if "spans" not in self._senders:
            return
        with self._changed:
            room = len(self._ended) < self._settings.queue
            if room:
                self._ended.append(span)
            if len(self._ended) in (1, self._settings.batch):
                self._changed.notify()
        if not room:
            self._add(_DROPPED, 1, {})

    def stop(self, within: float) -> None:
        """One more try for what waits; whatever the collector does, back within `within` seconds."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(within)

    def _run(self) -> None:
        due = self._clock.monotonic() + self._settings.interval
        while not self._stopping.is_set():
            self._wait(due)
            self._send_spans()
            if self._clock.monotonic() >= due:
                self._send_metrics()
                due = self._clock.monotonic() + self._settings.interval
        self._send_spans()
        self._send_metrics()

    def _wait(self, due: float) -> None:
        """Until the metrics are due, a batch is full, or the first span has waited for its delay."""
        left = max(0.0, due - self._clock.monotonic()) if "metrics" in self._senders else None
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._stopping.is_set(), left)
            if self._ended:
                full = self._settings.batch
                self._changed.wait_for(
                    lambda: len(self._ended) >= full or self._stopping.is_set(), self._settings.delay
                )

    def _send_spans(self) -> None:
        while True:
            with self._changed:
                count = min(len(self._ended), self._settings.batch)
                batch = [self._ended.popleft() for _ in range(count)]
            if not batch:
                return
            if not self._send("spans", "TraceRequest", [_span_shape(span) for span in batch]):
                self._add(_DROPPED, count, {})
                if self._stopping.is_set():
                    return

    def _send_metrics(self) -> None:
        if "metrics" in self._senders:
            self._reader.collect()
            if self._reader.data is not None:
                self._send("metrics", "MetricsRequest", list(_metric_shapes(self._reader.data)))

    def _send(self, signal: str, message: str, items: Sequence[otlp.Shape]) -> bool:
        shape = otlp.request(signal, self._resource, {"name": _SCOPE}, items)
        if not items or self._senders[signal].send(message, shape):
            self._failing.discard(signal)
            return True
        if signal not in self._failing:
            self._failing.add(signal)
            target = self._settings.traces if signal == "spans" else self._settings.metrics
            host = urlsplit(target.url).hostname if target is not None else ""
            _log.warning("telemetry: %s does not take %s; told once, counted from now on", host, signal)
        return False


def _sampler(name: str, ratio: float) -> sampling.Sampler:
    plain: dict[str, sampling.Sampler] = {
        "always_on": sampling.ALWAYS_ON,
        "always_off": sampling.ALWAYS_OFF,
        "traceidratio": sampling.TraceIdRatioBased(ratio),
    }
    chosen = plain[name.removeprefix("parentbased_")]
    return sampling.ParentBased(chosen) if name.startswith("parentbased_") else chosen


def _context_of(traceparent: str) -> trace.SpanContext | None:
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    flags = trace.TraceFlags(int(found[3], 16) & trace.TraceFlags.SAMPLED)
    made = trace.SpanContext(int(found[1], 16), int(found[2], 16), is_remote=True, trace_flags=flags)
    return made if made.is_valid else None


def _traceparent(of: trace.SpanContext) -> str:
    return f"00-{of.trace_id:032x}-{of.span_id:016x}-{of.trace_flags:02x}" if of.is_valid else ""


def _known(attributes: Mapping[str, Value]) -> dict[str, Value]:
    return {ATTRIBUTES[name]: _short(value) for name, value in attributes.items() if name in ATTRIBUTES}


def _of_metric(metric: str, attributes: Mapping[str, Value]) -> dict[str, Value]:
    allowed = METRICS[metric].attributes
    return {ATTRIBUTES[name]: _short(value) for name, value in attributes.items() if name in allowed}


def _short(value: Value) -> Value:
    return value[:LONGEST] if isinstance(value, str) else value


def _span_shape(span: ReadableSpan) -> otlp.Shape:
    own = span.get_span_context()
    assert own is not None, "a span that was begun has a context"
    shape: dict[str, Any] = {
        "traceId": f"{own.trace_id:032x}",
        "spanId": f"{own.span_id:016x}",
        "name": span.name,
        "kind": span.kind.value + 1,
        "startTimeUnixNano": str(span.start_time or 0),
        "endTimeUnixNano": str(span.end_time or 0),
        "attributes": otlp.attributes(span.attributes or {}),
        "flags": int(own.trace_flags),
        "status": {"code": span.status.status_code.value},
    }
    if span.parent is not None:
        shape["parentSpanId"] = f"{span.parent.span_id:016x}"
    if span.events:
        shape["events"] = [{"timeUnixNano": str(event.timestamp), "name": event.name} for event in span.events]
    if span.links:
        to = [link.context for link in span.links]
        shape["links"] = [{"traceId": f"{one.trace_id:032x}", "spanId": f"{one.span_id:016x}"} for one in to]
    return shape


def _metric_shapes(data: MetricsData) -> Iterator[otlp.Shape]:
    for of_resource in data.resource_metrics:
        for of_scope in of_resource.scope_metrics:
            for metric in of_scope.metrics:
                yield _metric_shape(metric)


def _metric_shape(metric: SdkMetric) -> otlp.Shape:
    points = [_point_shape(point) for point in metric.data.data_points]
    shape: dict[str, Any] = {"name": metric.name, "description": metric.description, "unit": metric.unit}
    match METRICS[metric.name].instrument:
        case Instrument.COUNTER:
            shape["sum"] = {"dataPoints": points, "aggregationTemporality": _CUMULATIVE, "isMonotonic": True}
        case Instrument.HISTOGRAM:
            shape["histogram"] = {"dataPoints": points, "aggregationTemporality": _CUMULATIVE}
        case Instrument.GAUGE:
            shape["gauge"] = {"dataPoints": points}
    return shape


def _point_shape(point: Any) -> otlp.Shape:
    shape: dict[str, Any] = {
        "startTimeUnixNano": str(point.start_time_unix_nano or 0),
        "timeUnixNano": str(point.time_unix_nano),
        "attributes": otlp.attributes(point.attributes or {}),
    }
    if hasattr(point, "bucket_counts"):
        shape |= {
            "count": str(point.count),
            "sum": point.sum,
            "bucketCounts": [str(count) for count in point.bucket_counts],
            "explicitBounds": list(point.explicit_bounds),
            "min": point.min,
            "max": point.max,
        }
    elif isinstance(point.value, int):
        shape["asInt"] = str(point.value)
    else:
        shape["asDouble"] = point.value
    return shape
