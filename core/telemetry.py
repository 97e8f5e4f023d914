"""Spans and metrics: the one door to OpenTelemetry. Off unless `configure` turned it on, and then it costs nothing.

Rules of this file: while it is off, a call is one look at a name; OpenTelemetry, which `core.telemetry_sdk` alone
imports, is not even loaded. While it is on,
one thread sends; nobody else ever waits for a collector. The queue is bounded, and what does not fit is dropped and
counted. Spans go from thread to thread and from process to process as text: a W3C traceparent. What may be told is
written in `core.signals`; the rest is left out here. An error is told by its category, never by its message.

Glossary: *traceparent* is `00-<32 hex>-<16 hex>-<2 hex>`, or "" for none; *attributes* are keywords of
`core.signals.ATTRIBUTES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

if TYPE_CHECKING:
    from core.clock import Clock
    from core.signals import Reading, Value


class Span(Protocol):
    """Something that takes time; enter it and leave it in one thread."""

    @property
    def parent(self) -> str:
        """The traceparent by which other threads, objects and processes go on from here; "" when nobody listens."""

    def note(self, **attributes: Value) -> None:
        """Add attributes, or replace them."""

    def mark(self, event: str) -> None:
        """Say that something was reached now."""

    def fail(self, error: BaseException) -> None:
        """Say that it went wrong, by the error's category or class."""

    def drop(self) -> None:
        """Nothing worth telling happened: it is never sent."""

    def __enter__(self) -> Self:
        """Begin: spans made in this thread from now on are its children."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End; an error is told and goes on."""


class _Silence:
    """The span of who is not listened to."""

    __slots__ = ()
    parent: Final = ""

    def note(self, **attributes: Value) -> None:
        """Nothing."""

    def mark(self, event: str) -> None:
        """Nothing."""

    def fail(self, error: BaseException) -> None:
        """Nothing."""

    def drop(self) -> None:
        """Nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None


class Backend(Protocol):
    """What listens while telemetry is on."""

    def span(self, name: str, parent: str, link: str, attributes: Mapping[str, Value]) -> Span:
        """As the function."""

    def current(self) -> str:
        """As the function."""

    def note(self, attributes: Mapping[str, Value]) -> None:
        """As the function."""

    def add(self, name: str, amount: float, attributes: Mapping[str, Value]) -> None:
        """As `count` and `measure`."""

    def observe(self, name: str, read: Reading) -> None:
        """As the function."""

    def shutdown(self, within: float) -> None:
        """As the function."""


_SILENCE: Final = _Silence()
_backend: Backend | None = None


def span(name: str, /, *, parent: str = "", link: str = "", **attributes: Value) -> Span:
    """A span of `core.signals.SPANS`: child of the traceparent `parent`, else of the thread's span, else a new trace.

    `link` is a traceparent of another trace that it has to do with. A traceparent that is none is ignored.
    """
    return _SILENCE if _backend is None else _backend.span(name, parent, link, attributes)


def current() -> str:
    """The traceparent of this thread's span; "" when there is none."""
    return "" if _backend is None else _backend.current()


def note(**attributes: Value) -> None:
    """Add attributes to this thread's span."""
    if _backend is not None:
        _backend.note(attributes)


def count(name: str, amount: float = 1, /, **attributes: Value) -> None:
    """Add to a counter of `core.signals.METRICS`."""
    if _backend is not None:
        _backend.add(name, amount, attributes)


def measure(name: str, value: float, /, **attributes: Value) -> None:
    """Take one value (seconds) into a histogram of `core.signals.METRICS`."""
    if _backend is not None:
        _backend.add(name, value, attributes)


def observe(name: str, read: Reading) -> None:
    """Let a gauge of `core.signals.METRICS` be read by `read`, whenever metrics are sent."""
    if _backend is not None:
        _backend.observe(name, read)


def is_on() -> bool:
    """Whether anybody listens: for what costs something to find out."""
    return _backend is not None


def configure(
    environment: Mapping[str, str], clock: Clock, *, endpoint: str | None = None, interval: float = 60.0, **who: str
) -> bool:
    """Turn telemetry on if the standard `OTEL_*` variables in `environment`, or else `endpoint`, say where to send.

    `interval` seconds lie between two sendings of metrics unless a variable says otherwise; `who` are more attributes
    of this process (`service_version` becomes `service.version`). Returns whether it is on. What cannot be used is
    told as a warning in the log, and costs nobody more than the telemetry. Does nothing when it is on already.
    """
    global _backend  # noqa: PLW0603 - who measures has no other way to know that nobody listens
    if _backend is None and (endpoint or any(name.startswith("OTEL_EXPORTER_OTLP_") for name in environment)):
        from core.telemetry_settings import read_settings  # only who turns it on pays for it

        settings = read_settings(environment, endpoint=endpoint, interval=interval, who=who)
        if settings is not None:
            from core.telemetry_sdk import Listener

            _backend = Listener(settings, clock)
    return _backend is not None


def shutdown(within: float = 3.0) -> None:
    """Send what is waiting, for at most `within` seconds, and be off; harmless when it is off."""
    global _backend
    backend, _backend = _backend, None
    if backend is not None:
        backend.shutdown(within)
