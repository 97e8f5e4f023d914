"""What probes' answers come to."""

from typing import Any

import pytest

from reconciler.decide.health import Health, ProbeSeen, asked, health
from reconciler.model.kinds.probes import Probes

WELL = ProbeSeen(True)
NO = {n: ProbeSeen(False, n, "tcp :80 refused") for n in range(1, 5)}
LOST = ProbeSeen(True, 2, "tcp :80 refused")


def probes(*roles: str) -> Probes:
    return Probes.model_validate({role: {"tcp": {"port": 80}} for role in roles})


CASES: list[tuple[tuple[str, ...], dict[str, ProbeSeen], bool, Health]] = [
    ((), {}, False, Health(True, True)),
    (("readiness",), {}, False, Health(True, False, "readiness probe not answered yet")),
    (("readiness",), {"readiness": NO[2]}, False, Health(True, False, "readiness probe 2/3 (tcp :80 refused)")),
    (("readiness",), {"readiness": NO[4]}, False, Health(True, False, "readiness probe 3/3 (tcp :80 refused)")),
    (("readiness",), {"readiness": LOST}, False, Health(True, True)),
    (("readiness",), {"readiness": WELL}, False, Health(True, True)),
    (("liveness",), {}, False, Health(True, True)),
    (("liveness",), {"liveness": NO[2]}, False, Health(True, True)),
    (("startup", "readiness"), {}, False, Health(False, False, "startup probe not answered yet")),
    (("startup", "readiness"), {"startup": NO[1]}, False, Health(False, False, "startup probe 1/3 (tcp :80 refused)")),
    (("startup", "readiness"), {"startup": WELL}, False, Health(True, False, "readiness probe not answered yet")),
    (("startup", "liveness"), {"liveness": WELL}, True, Health(True, True)),
]


@pytest.mark.parametrize(("roles", "seen", "started", "expected"), CASES)
def test_answers_come_to_one_health(
    roles: tuple[str, ...], seen: dict[str, ProbeSeen], started: bool, expected: Health
) -> None:
    assert health(probes(*roles), seen, started=started) == expected


@pytest.mark.parametrize("role", ["startup", "liveness"])
def test_what_fails_too_often_must_be_ended(role: str) -> None:
    found = health(probes(role, "readiness"), {role: NO[3], "readiness": WELL}, started=False)
    assert found.fatal == f"{role} probe failed 3 times (tcp :80 refused)"
    assert not found.ready


def test_until_the_startup_probe_has_passed_it_alone_is_asked() -> None:
    given = probes("startup", "liveness", "readiness")
    assert list(asked(given, started=False)) == ["startup"]
    assert list(asked(given, started=True)) == ["liveness", "readiness"]
    assert list(asked(probes("readiness"), started=False)) == ["readiness"]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"liveness": {}}, "probes.liveness"),
        ({"liveness": {"exec": []}}, "probes.liveness.exec"),
        ({"liveness": {"exec": [True]}}, "probes.liveness.exec[0]"),
        ({"liveness": {"tcp": {"port": 1}, "exec": ["true"]}}, "probes.liveness.tcp"),
    ],
)
def test_a_probe_asks_in_one_way(spec: dict[str, Any], path: str) -> None:
    from reconciler.model.identity import Kind
    from reconciler.model.kinds.checking import check_spec
    from reconciler.model.problems import shown

    found = check_spec(Kind.CONTAINER, {"image": "web", "probes": spec})
    assert [shown(problem.path) for problem in found] == [f"spec.{path}"]
