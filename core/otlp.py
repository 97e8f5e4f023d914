"""OTLP 1.x over HTTP: requests as plain values, written as protobuf or JSON, and sent.

Rules of this file: a request is built once, in the shape of OTLP's JSON (64-bit integers as strings, ids as hex), and
`MESSAGES` says how each field goes over the wire as protobuf. Nothing here raises for what a collector does: `send`
says whether it took the request. What a collector answers is read up to a limit, and never kept.

Specification: OTLP 1.x, "OTLP/HTTP"; the Protocol Buffers encoding (wire types 0, 1, 2, 5).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any, Final

import urllib3

from core.clock import Clock
from core.values import dataclass

Shape = Mapping[str, Any]

MESSAGES: Final[Mapping[str, Mapping[str, tuple[int, str]]]] = {
    "TraceRequest": {"resourceSpans": (1, "ResourceSpans")},
    "ResourceSpans": {"resource": (1, "Resource"), "scopeSpans": (2, "ScopeSpans")},
    "ScopeSpans": {"scope": (1, "Scope"), "spans": (2, "Span")},
    "Span": {
        "traceId": (1, "hex"), "spanId": (2, "hex"), "traceState": (3, "text"), "parentSpanId": (4, "hex"),
        "name": (5, "text"), "kind": (6, "varint"), "startTimeUnixNano": (7, "fixed64"),
        "endTimeUnixNano": (8, "fixed64"), "attributes": (9, "KeyValue"), "droppedAttributesCount": (10, "varint"),
        "events": (11, "SpanEvent"), "droppedEventsCount": (12, "varint"), "links": (13, "SpanLink"),
        "droppedLinksCount": (14, "varint"), "status": (15, "Status"), "flags": (16, "fixed32"),
    },
    "SpanEvent": {"timeUnixNano": (1, "fixed64"), "name": (2, "text"), "attributes": (3, "KeyValue")},
    "SpanLink": {"traceId": (1, "hex"), "spanId": (2, "hex"), "traceState": (3, "text"), "attributes": (4, "KeyValue")},
    "Status": {"message": (2, "text"), "code": (3, "varint")},
    "MetricsRequest": {"resourceMetrics": (1, "ResourceMetrics")},
    "ResourceMetrics": {"resource": (1, "Resource"), "scopeMetrics": (2, "ScopeMetrics")},
    "ScopeMetrics": {"scope": (1, "Scope"), "metrics": (2, "Metric")},
    "Metric": {
        "name": (1, "text"), "description": (2, "text"), "unit": (3, "text"), "gauge": (5, "Gauge"), "sum": (7, "Sum"),
        "histogram": (9, "Histogram"),
    },
    "Gauge": {"dataPoints": (1, "Number")},
    "Sum": {"dataPoints": (1, "Number"), "aggregationTemporality": (2, "varint"), "isMonotonic": (3, "varint")},
    "Histogram": {"dataPoints": (1, "Buckets"), "aggregationTemporality": (2, "varint")},
    "Number": {
        "startTimeUnixNano": (2, "fixed64"), "timeUnixNano": (3, "fixed64"), "asDouble": (4, "double"),
        "asInt": (6, "sfixed64"), "attributes": (7, "KeyValue"),
    },
    "Buckets": {
        "startTimeUnixNano": (2, "fixed64"), "timeUnixNano": (3, "fixed64"), "count": (4, "fixed64"),
        "sum": (5, "double"), "bucketCounts": (6, "packed fixed64"), "explicitBounds": (7, "packed double"),
        "attributes": (9, "KeyValue"), "min": (11, "double"), "max": (12, "double"),
    },
    "Resource": {"attributes": (1, "KeyValue")},
    "Scope": {"name": (1, "text"), "version": (2, "text")},
    "KeyValue": {"key": (1, "text"), "value": (2, "AnyValue")},
    "AnyValue": {
        "stringValue": (1, "text"), "boolValue": (2, "varint"), "intValue": (3, "varint"), "doubleValue": (4, "double"),
    },
}  # fmt: skip
"""Each message's fields: OTLP's JSON name → its number and type. A type that is a message's name may be repeated."""

PROTOBUF: Final = "http/protobuf"
JSON: Final = "http/json"
_TYPES: Final = {PROTOBUF: "application/x-protobuf", JSON: "application/json"}
_AGAIN: Final = (429, 502, 503, 504)
_MOST_ANSWER: Final = 64 << 10
_FIRST_PAUSE: Final = 0.5


def attributes(values: Mapping[str, Any]) -> list[Shape]:
    """Attributes as OTLP has them; what is neither bool, int nor float is text."""
    return [{"key": key, "value": _any_value(value)} for key, value in values.items()]


def _any_value(value: Any) -> Shape:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case _:
            return {"stringValue": str(value)}


def protobuf(message: str, shape: Shape) -> bytes:
    """The bytes of a message of `MESSAGES`; raises `KeyError` for a field that it has not."""
    return b"".join(_fields(MESSAGES[message], shape))


def _fields(fields: Mapping[str, tuple[int, str]], shape: Shape) -> Iterator[bytes]:
    for name, value in shape.items():
        number, kind = fields[name]
        if kind in MESSAGES:
            for one in value if isinstance(value, list) else [value]:
                yield _sized(number, protobuf(kind, one))
        else:
            yield _SCALARS[kind](number, value)


def _varint(value: int) -> bytes:
    found = bytearray()
    value &= 0xFFFF_FFFF_FFFF_FFFF  # a negative number is written as its 64-bit complement
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _sized(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _packed(form: str) -> Callable[[int, Any], bytes]:
    read: Callable[[Any], int | float] = float if form == "d" else int
    return lambda number, values: _sized(number, struct.pack(f"<{len(values)}{form}", *map(read, values)))


_SCALARS: Final[Mapping[str, Callable[[int, Any], bytes]]] = {
    "text": lambda number, value: _sized(number, str(value).encode("utf-8", "replace")),
    "hex": lambda number, value: _sized(number, bytes.fromhex(value)),
    "varint": lambda number, value: _varint(number << 3) + _varint(int(value)),
    "fixed64": lambda number, value: _varint(number << 3 | 1) + struct.pack("<Q", int(value)),
    "sfixed64": lambda number, value: _varint(number << 3 | 1) + struct.pack("<q", int(value)),
    "fixed32": lambda number, value: _varint(number << 3 | 5) + struct.pack("<I", int(value)),
    "double": lambda number, value: _varint(number << 3 | 1) + struct.pack("<d", float(value)),
    "packed fixed64": _packed("Q"),
    "packed double": _packed("d"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where one signal goes: `url`, `headers`, the whole request's `timeout` in seconds, how it is written."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 10.0
    protocol: str = PROTOBUF
    gzip: bool = False
    tls: Mapping[str, str] = field(default_factory=dict)
    """`ca_certs`, `cert_file`, `key_file`: paths, as urllib3 names them."""


class Sender:
    """Sends requests to one target. `pause(seconds)` waits, and says whether to give up. One thread at a time."""

    def __init__(self, target: Target, clock: Clock, pause: Callable[[float], bool]) -> None:
        self._target = target
        self._clock = clock
        self._pause = pause
        files: dict[str, Any] = dict(target.tls)
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=1, retries=False, **files)

    def send(self, message: str, shape: Shape) -> bool:
        """Whether the collector took it; tried again within the timeout when it asks for that. Raises nothing of it."""
        target = self._target
        body = json.dumps(shape).encode() if target.protocol == JSON else protobuf(message, shape)
        headers = {**target.headers, "Content-Type": _TYPES[target.protocol]}
        if target.gzip:
            body, headers["Content-Encoding"] = _gzipped(body), "gzip"
        deadline, pause = self._clock.monotonic() + target.timeout, _FIRST_PAUSE
        while (left := deadline - self._clock.monotonic()) > 0:
            status, after = self._post(body, headers, left)
            if status not in _AGAIN and status != 0:
                return 200 <= status < 300
            wait = max(pause, after)
            if self._clock.monotonic() + wait >= deadline or self._pause(wait):
                return False
            pause *= 2
        return False

    def _post(self, body: bytes, headers: Mapping[str, str], seconds: float) -> tuple[int, float]:
        """The answer's status (0: there was none) and the seconds that it asks to be left alone."""
        try:
            reply = self._pool.request(
                "POST",
                self._target.url,
                body=body,
                headers=dict(headers),
                timeout=urllib3.Timeout(connect=min(seconds, 5.0), read=seconds),
                redirect=False,
                preload_content=False,
            )
            try:
                reply.read1(_MOST_ANSWER, decode_content=False)  # all of a usual answer; what is longer is cut off
                after = reply.headers.get("Retry-After", "")
                return reply.status, float(after) if after.isdecimal() else 0.0
            finally:
                reply.close()
        except (urllib3.exceptions.HTTPError, OSError, ValueError):
            return 0, 0.0  # gone, slow, no HTTP, or a header that is none: all the same to us

    def close(self) -> None:
        """Let go of the connection."""
        self._pool.clear()


def _gzipped(body: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()


def request(signal: str, resource: Mapping[str, Any], scope: Shape, items: Sequence[Shape]) -> Shape:
    """A whole request of `items` (`spans` or `metrics`, as `signal` says) from one resource and scope."""
    inner = {"scope": scope, signal: list(items)}
    of_scope, of_resource = f"scope{signal.capitalize()}", f"resource{signal.capitalize()}"
    return {of_resource: [{"resource": {"attributes": attributes(resource)}, of_scope: [inner]}]}
