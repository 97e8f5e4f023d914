"""The standard `OTEL_*` variables, read once to a value. What cannot be used is told in the log and left out.

Specification: OpenTelemetry "Environment Variable Specification" and "OTLP Exporter Configuration": an empty variable
is as good as none; times are milliseconds; a signal's own variable goes before the general one. Told apart from it: no
endpoint means off, not localhost; only OTLP over HTTP is spoken.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import field
from typing import Final
from urllib.parse import unquote, urlsplit

from core.otlp import JSON, PROTOBUF, Target
from core.values import dataclass

_log: Final = logging.getLogger(__name__)
_GENERAL: Final = "OTEL_EXPORTER_OTLP_"
SAMPLERS: Final = ("always_on", "always_off", "traceidratio")
"""Each also with `parentbased_` before it: what a parent said goes first."""
DEFAULT_SAMPLER: Final = "parentbased_always_on"


@dataclass(frozen=True, slots=True)
class Settings:
    """What is sent where, in seconds and pieces; a target of None: that signal is off."""

    traces: Target | None
    metrics: Target | None
    sampler: tuple[str, float] = (DEFAULT_SAMPLER, 1.0)
    queue: int = 2048
    batch: int = 512
    delay: float = 5.0
    interval: float = 60.0
    resource: Mapping[str, str] = field(default_factory=dict)


class _Variables:
    """Reads variables by name; warns of what is no number or not known."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str) -> str:
        """Its text; "" when it is not set."""
        return self._environment.get(name, "").strip()

    def of(self, signal: str, name: str) -> str:
        """An exporter's variable: the signal's own, else the general one."""
        return self.text(f"{_GENERAL}{signal.upper()}_{name}") or self.text(_GENERAL + name)

    def number(self, name: str, default: float, *, least: float = 0.0) -> float:
        """Its number, where it is one of at least `least`."""
        text = self.text(name)
        try:
            value = float(text) if text else default
        except ValueError:
            value = -1.0
        if not least <= value < 1e12:
            _log.warning("telemetry: %s is not a number that can be used; %g is taken", name, default)
            return default
        return value

    def pairs(self, name: str) -> dict[str, str]:
        """`a=b,c=d`, values percent-decoded."""
        found = {}
        for part in filter(None, (part.strip() for part in self.text(name).split(","))):
            key, equals, value = part.partition("=")
            if not equals or not key.strip() or not (decoded := unquote(value.strip())).isprintable():
                _log.warning("telemetry: %s has a part that is not NAME=VALUE; it is left out", name)
                continue
            found[key.strip()] = decoded
        return found


def read_settings(
    environment: Mapping[str, str], *, endpoint: str | None, interval: float, who: Mapping[str, str]
) -> Settings | None:
    """What `environment` asks for; `endpoint`, `interval` and `who` are for where it says nothing. None: off."""
    variables = _Variables(environment)
    if variables.text("OTEL_SDK_DISABLED").lower() == "true":
        return None
    traces, metrics = (_target(variables, signal, endpoint) for signal in ("traces", "metrics"))
    if traces is None and metrics is None:
        return None
    queue = int(variables.number("OTEL_BSP_MAX_QUEUE_SIZE", 2048, least=1))
    return Settings(
        traces=traces,
        metrics=metrics,
        sampler=_sampler(variables),
        queue=queue,
        batch=min(queue, int(variables.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, least=1))),
        delay=variables.number("OTEL_BSP_SCHEDULE_DELAY", 5000) / 1000,
        interval=variables.number("OTEL_METRIC_EXPORT_INTERVAL", interval * 1000, least=100) / 1000,
        resource=_resource(variables, who),
    )


def _target(variables: _Variables, signal: str, configured: str | None) -> Target | None:
    chosen = variables.text(f"OTEL_{signal.upper()}_EXPORTER") or "otlp"
    if chosen != "otlp":
        if chosen != "none":
            _log.warning("telemetry: OTEL_%s_EXPORTER=%s is not known here; %s are off", signal.upper(), chosen, signal)
        return None
    url = variables.text(f"{_GENERAL}{signal.upper()}_ENDPOINT")
    if not url and (general := variables.text(f"{_GENERAL}ENDPOINT") or configured):
        url = f"{general.rstrip('/')}/v1/{signal}"
    if not url:
        return None
    protocol = variables.of(signal, "PROTOCOL") or PROTOBUF
    fault = _fault(url, protocol)
    tls = _tls(variables, signal)
    if tls is None or fault:
        _log.warning("telemetry: %s are off: %s", signal, fault or "a file with a certificate or key cannot be read")
        return None
    own = f"{_GENERAL}{signal.upper()}_"
    return Target(
        url=url,
        headers={**variables.pairs(f"{_GENERAL}HEADERS"), **variables.pairs(f"{own}HEADERS")},
        timeout=variables.number(f"{own}TIMEOUT", variables.number(f"{_GENERAL}TIMEOUT", 10_000), least=1) / 1000,
        protocol=protocol,
        gzip=variables.of(signal, "COMPRESSION") == "gzip",
        tls=tls,
    )


def _fault(url: str, protocol: str) -> str:
    if protocol not in (PROTOBUF, JSON):
        return f"the protocol {protocol!r} is not spoken here, only {PROTOBUF} and {JSON}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    return "" if usable else "the endpoint is not an http or https URL"


def _tls(variables: _Variables, signal: str) -> dict[str, str] | None:
    """Files for TLS as urllib3 names them; None when one cannot be read."""
    names = {"CERTIFICATE": "ca_certs", "CLIENT_CERTIFICATE": "cert_file", "CLIENT_KEY": "key_file"}
    found = {word: path for name, word in names.items() if (path := variables.of(signal, name))}
    return found if all(os.access(path, os.R_OK) for path in found.values()) else None


def _sampler(variables: _Variables) -> tuple[str, float]:
    name = variables.text("OTEL_TRACES_SAMPLER") or DEFAULT_SAMPLER
    if name.removeprefix("parentbased_") not in SAMPLERS:
        _log.warning("telemetry: OTEL_TRACES_SAMPLER is not known; %s is taken", DEFAULT_SAMPLER)
        name = DEFAULT_SAMPLER
    return name, min(1.0, variables.number("OTEL_TRACES_SAMPLER_ARG", 1.0))


def _resource(variables: _Variables, who: Mapping[str, str]) -> dict[str, str]:
    known = {name.replace("_", "."): value for name, value in who.items()}
    found = {"service.name": "reconciler", **known, **variables.pairs("OTEL_RESOURCE_ATTRIBUTES")}
    if name := variables.text("OTEL_SERVICE_NAME"):
        found["service.name"] = name
    return found
