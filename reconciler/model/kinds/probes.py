"""How a container is asked how it is: startup, liveness and readiness probes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from reconciler.model.kinds.base import Listed, Spec
from reconciler.model.kinds.quantities import Seconds
from reconciler.model.kinds.sandbox import Port
from reconciler.model.kinds.texts import HttpPath
from reconciler.model.problems import Problem, mapping_at

WAYS: Final = ("exec", "http", "tcp")
ROLES: Final = ("startup", "liveness", "readiness")


class Http(Spec):
    """GET `path` of a server in the container's network; 200 to 399 is well."""

    port: Port
    path: HttpPath = "/"


class Tcp(Spec):
    """A connection to a port in the container's network."""

    port: Port


class Probe(Spec):
    """One question, asked each `every`: exactly one of exec, http, tcp. `failures` in a row count as no."""

    exec: Annotated[Listed[str], Field(min_length=1)] | None = None
    http: Http | None = None
    tcp: Tcp | None = None
    every: Seconds = 10.0
    timeout: Seconds = 1.0
    failures: Annotated[int, Field(ge=1, le=1000)] = 3


class Probes(Spec):
    """`startup` comes before the others, once; failing, it and `liveness` end the container; `readiness` says whether
    it is Ready.
    """

    startup: Probe | None = None
    liveness: Probe | None = None
    readiness: Probe | None = None

    def by_role(self) -> dict[str, Probe]:
        """Those that are given."""
        return {role: probe for role in ROLES if (probe := getattr(self, role)) is not None}


def probe_conflicts(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """What no field shows alone: a probe asks in one way."""
    probes = mapping_at(spec, "probes")
    for role in ROLES:
        probe = probes.get(role)
        if not isinstance(probe, Mapping):
            continue
        given = [way for way in WAYS if way in probe]
        advice = f"write exactly one of {', '.join(WAYS)}"
        if not given:
            yield Problem(("probes", role), "does not say how to ask", advice)
        for way in given[1:]:
            yield Problem(("probes", role, way), f"stands beside {given[0]}", advice, at_key=True)
