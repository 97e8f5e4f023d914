"""What probes' answers mean for a container: whether it is ready, and whether it must be ended."""

from __future__ import annotations

from collections.abc import Mapping

from core.values import dataclass
from reconciler.model.kinds.probes import Probe, Probes

UNHEALTHY = "Unhealthy"
"""The reason of an end that a probe brought about."""


@dataclass(frozen=True, slots=True)
class ProbeSeen:
    """What one probe of a running task has said so far.

    `passing`: it passed, and has not failed as often as counts since; `failures` in a row; `message`: the last one.
    """

    passing: bool = False
    failures: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """The sum of it. `started`: there is no startup probe, or it has passed; `trouble`: why it is not ready, in words;
    `fatal`: why it must be ended, "" when it need not be.
    """

    started: bool
    ready: bool
    trouble: str = ""
    fatal: str = ""


def health(probes: Probes, seen: Mapping[str, ProbeSeen], *, started: bool) -> Health:
    """How a running container is. `started`: its startup probe has passed in this attempt, seen now or remembered."""
    if probes.startup is not None and not started:
        answer = seen.get("startup", ProbeSeen())
        if not answer.passing:
            told, fatal = (of("startup", probes.startup, answer) for of in (_told, _fatal))
            return Health(False, False, fatal or told, fatal)
    fatal = ""
    if probes.liveness is not None:
        fatal = _fatal("liveness", probes.liveness, seen.get("liveness", ProbeSeen()))
    if probes.readiness is None:
        return Health(True, not fatal, fatal, fatal)
    answer = seen.get("readiness", ProbeSeen())
    if answer.passing:
        return Health(True, not fatal, fatal, fatal)
    return Health(True, False, fatal or _told("readiness", probes.readiness, answer), fatal)


def asked(probes: Probes, *, started: bool) -> dict[str, Probe]:
    """The probes that are to be asked now, by role: until the startup probe has passed, that alone."""
    given = probes.by_role()
    if "startup" in given and not started:
        return {"startup": given["startup"]}
    given.pop("startup", None)
    return given


def _told(role: str, probe: Probe, answer: ProbeSeen) -> str:
    """`readiness probe 2/3 (tcp :5432 refused)`."""
    if not answer.failures:
        return f"{role} probe not answered yet"
    return f"{role} probe {min(answer.failures, probe.failures)}/{probe.failures} ({answer.message})"


def _fatal(role: str, probe: Probe, answer: ProbeSeen) -> str:
    if answer.failures < probe.failures:
        return ""
    return f"{role} probe failed {probe.failures} times ({answer.message})"


def escaped(outside: str) -> str:
    """What is wrong with a task whose first process has left those control groups; "" where it has left none."""
    return f"it runs outside of its control groups ({outside}), so no limit holds it" if outside else ""
