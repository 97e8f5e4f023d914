"""A Pod's probes as ours.

Rules of this file: a probe that cannot be asked here is dropped whole. Waiting before the first question is, for what
would end the container, a startup probe of the same question.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from migrations.config.work import Outcome
from migrations.manifests.amounts import seconds
from migrations.manifests.given import Account, Given, Rule, follow
from migrations.manifests.making import is_port

_ROLES: Final = {"startupProbe": "startup", "livenessProbe": "liveness", "readinessProbe": "readiness"}
_PERIOD: Final = 10
_FAILURES: Final = 3
_MOST_FAILURES: Final = 1000
_NO_GRPC: Final = "gRPC is not asked: write an exec or tcp probe"


def probes(account: Account, container: Given, ports: Mapping[str, int], where: str) -> dict[str, Any]:
    """All probes of a container. `ports`: its ports by name."""
    found: dict[str, Any] = {}
    waits: dict[str, int] = {}
    for key, role in _ROLES.items():
        given = container.get(key)
        if given is None:
            continue
        probe = _probe(account, given, ports, f"{where} probes.{role}")
        if probe is not None:
            found[role] = probe
            waits[role] = _whole(given, "initialDelaySeconds", 0)
        else:
            account.dropped(given, "cannot be asked here: write a probe of exec, http or tcp")
    return _waiting(account, container, found, waits)


def _probe(account: Account, given: Given, ports: Mapping[str, int], where: str) -> dict[str, Any] | None:
    asked = _asked(account, given, ports, where)
    if asked is None:
        return None
    probe = dict(asked)
    for key, ours in (("periodSeconds", "every"), ("timeoutSeconds", "timeout")):
        if (one := given.get(key)) is not None:
            probe[ours] = seconds(max(one.number(), 1)) or "1s"
            account.moved(one, f"{where}.{ours}")
    if (one := given.get("failureThreshold")) is not None:
        probe["failures"] = min(max(one.number(), 1), _MOST_FAILURES)
        account.moved(one, f"{where}.failures")
    rules: dict[str, Rule] = {
        "successThreshold": lambda one: _once(account, one),
        "terminationGracePeriodSeconds": (Outcome.DROPPED, "the container's own time to stop counts: stop.grace"),
    }
    follow(account, given, rules)
    return probe


def _once(account: Account, given: Given) -> None:
    if given.number() == 1:
        account.default(given)
    else:
        account.dropped(given, "one good answer is enough here")


def _asked(account: Account, given: Given, ports: Mapping[str, int], where: str) -> dict[str, Any] | None:
    """The question; None where it cannot be asked."""
    if (command := given.get("exec", "command")) is not None and command.listing():
        account.moved(command, f"{where}.exec")
        return {"exec": [one.string() for one in command.listing()]}
    if (http := given.get("httpGet")) is not None:
        return _http(account, http, ports, where)
    if (tcp := given.get("tcpSocket")) is not None:
        port = _port(tcp, ports)
        account.moved(tcp.get("port"), f"{where}.tcp.port")
        account.dropped(tcp.get("host"), "the container itself is asked")
        return {"tcp": {"port": port}}
    account.dropped(given.get("grpc"), _NO_GRPC)
    return None


def _http(account: Account, http: Given, ports: Mapping[str, int], where: str) -> dict[str, Any]:
    port, path, scheme = _port(http, ports), http.get("path"), http.get("scheme")
    account.dropped(http.get("host"), "the container itself is asked")
    account.dropped(http.get("httpHeaders"), "headers are not sent: write an exec probe where they are needed")
    if scheme is not None and scheme.string().upper() == "HTTPS":
        account.translated(http, f"{where}.tcp", "https is not asked: that the port answers is what counts")
        return {"tcp": {"port": port}}
    account.moved(http.get("port"), f"{where}.http.port")
    account.default(scheme)
    text = path.string() if path is not None else "/"
    if not (text.startswith("/") and len(text) < 2000 and text.isascii() and text.isprintable() and " " not in text):
        assert path is not None
        raise path.bad("is no path of a URL", "Begin it with /, as in /healthz.")
    account.moved(path, f"{where}.http.path")
    return {"http": {"port": port, "path": text}}


def _port(given: Given, ports: Mapping[str, int]) -> int:
    port = given.get("port")
    if port is None:
        raise given.bad("names no port", "Write port: NUMBER.")
    number = ports.get(port.string())
    if number is None:
        if not port.string().isdigit():
            raise port.bad("is the name of no port of this container", "Write the number.")
        number = port.number()
    if not is_port(number):
        raise port.bad("is no port", "Write a number from 1 to 65535.")
    return number


def _whole(given: Given, key: str, otherwise: int) -> int:
    one = given.get(key)
    return otherwise if one is None else max(one.number(), 0)


def _waiting(account: Account, container: Given, found: dict[str, Any], waits: Mapping[str, int]) -> dict[str, Any]:
    """Probes with the time before their first question."""
    for key, role in _ROLES.items():
        delay = container.get(key, "initialDelaySeconds")
        if delay is None or not waits.get(role):
            account.default(delay, "asked at once")
        elif role == "readiness":
            account.inert(delay, "asked from the start; until it says yes the container is only not Ready")
        elif role == "startup":
            found[role] = _patient(found[role], waits[role], container.get(key))
            account.translated(delay, "probes.startup.failures", "so many more questions may fail")
        elif "startup" not in found:
            found = {"startup": _patient(found[role], waits[role], container.get(key)), **found}
            account.translated(delay, "probes.startup", "the same question, which may fail for so long")
        else:
            account.inert(delay, "the startup probe says when it begins")
    return found


def _patient(probe: Mapping[str, Any], wait: int, given: Given | None) -> dict[str, Any]:
    every = max(_whole(given, "periodSeconds", _PERIOD), 1) if given is not None else _PERIOD
    failures = probe.get("failures", _FAILURES) + math.ceil(wait / every)
    return {**probe, "failures": min(failures, _MOST_FAILURES)}
