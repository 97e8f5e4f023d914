"""What a container owns and needs around it."""

from dataclasses import replace
from typing import Any

import pytest

from reconciler.decide.attempts import Attempt
from reconciler.decide.facts import ContainerFacts, Dependency, ImageSeen, SandboxView
from reconciler.decide.references import image_key, sandbox_key
from reconciler.decide.surroundings import around, disown_unneeded, ensure_owned, needs, owned_objects
from reconciler.model.actions import Disown, EnsureOwned
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object

WEB = Key(Kind.CONTAINER, "web.site")
OWN: dict[str, Any] = {"image": "busybox:1", "network": {"mode": "none"}}
SHARED: dict[str, Any] = {"image": "base", "sandbox": "shared"}


def facts(spec: dict[str, Any], **more: Any) -> ContainerFacts:
    """A container with all that it needs."""
    sandbox = next((one.spec for one in owned_objects(WEB, spec) if one.kind is Kind.SANDBOX), {})
    image = ImageSeen(image_key(spec), True, {}, frozenset({WEB}))
    view = SandboxView(sandbox_key(WEB.name, spec), True, "s-1", sandbox, frozenset({WEB}))
    return ContainerFacts(Object(WEB, spec=spec), "boot-1", image, view, **more)


def test_an_image_by_reference_and_a_private_sandbox_are_owned() -> None:
    image, sandbox = owned_objects(WEB, OWN)
    assert (image.key, image.spec) == (image_key(OWN), {"ref": "docker.io/library/busybox:1"})
    assert sandbox.key == sandbox_key(WEB.name, OWN)
    assert sandbox.spec == {"runtime": "runc", "network": {"mode": "none"}, "hostname": "web"}
    assert (image.manager, sandbox.manager) == ("engine", "engine")
    assert image.finalizers == {"image"}
    assert sandbox.finalizers == {"sandbox"}


def test_on_the_nodes_own_network_there_is_no_hostname_of_its_own() -> None:
    _, sandbox = owned_objects(WEB, {**OWN, "network": {"mode": "host"}})
    assert "hostname" not in sandbox.spec


def test_what_is_named_is_not_owned() -> None:
    assert list(owned_objects(WEB, SHARED)) == []


def test_what_is_there_as_it_should_be_is_left_alone() -> None:
    assert list(ensure_owned(facts(OWN))) == []


def without(name: str, **fields: Any) -> ContainerFacts:
    """Facts in which the image or the sandbox is otherwise; no fields: it is not there."""
    seen = facts(OWN)
    return replace(seen, **{name: replace(getattr(seen, name), **fields) if fields else None})


@pytest.mark.parametrize(
    "seen",
    [
        without("image"),
        without("sandbox"),
        without("image", owners=frozenset()),
        without("sandbox", owners=frozenset()),
        without("sandbox", spec={"runtime": "runc"}),
    ],
)
def test_what_is_missing_not_owned_or_otherwise_is_made_so(seen: ContainerFacts) -> None:
    (action,) = ensure_owned(seen)
    assert isinstance(action, EnsureOwned)
    assert action.owner == WEB


@pytest.mark.parametrize("name", ["image", "sandbox"])
def test_what_is_on_its_way_out_is_waited_for_and_not_taken(name: str) -> None:
    seen = without(name, deleting=True, ready=False, owners=frozenset())
    assert list(ensure_owned(seen)) == []
    assert len(list(needs(seen))) == 1


def test_what_is_owned_and_not_needed_is_let_go() -> None:
    old = {Key(Kind.IMAGE, "old"), Key(Kind.SANDBOX, "old")}
    seen = facts(OWN, owned=frozenset({*old, image_key(OWN), sandbox_key(WEB.name, OWN)}))
    assert list(disown_unneeded(seen)) == [Disown(key, WEB) for key in sorted(old)]


def test_with_all_there_nothing_is_waited_for() -> None:
    assert list(needs(facts(SHARED, volumes={"data": True}, secrets={"login": "aa"}))) == []


@pytest.mark.parametrize(
    ("changes", "reason", "stalled"),
    [
        ({"image": None}, "ImageMissing", True),
        ({"sandbox": None}, "SandboxMissing", True),
        ({"volumes": {"data": False}}, "VolumeNotReady", False),
        ({"secrets": {"login": ""}}, "SecretMissing", True),
        ({"dependencies": (Dependency(Key(Kind.CONTAINER, "db"), "Ready", False, "slow"),)}, "DependencyNotMet", False),
    ],
)
def test_what_is_missing_is_named_and_stalled_where_a_person_must_help(
    changes: dict[str, Any], reason: str, stalled: bool
) -> None:
    (wait,) = needs(replace(facts(SHARED), **changes))
    assert (wait.reason, wait.stalled) == (reason, stalled)
    assert wait.stalled is bool(wait.hint)


@pytest.mark.parametrize("name", ["image", "sandbox"])
@pytest.mark.parametrize("stalled", [False, True])
def test_what_is_not_ready_tells_its_own_trouble(name: str, stalled: bool) -> None:
    seen = facts(SHARED)
    (wait,) = needs(
        replace(seen, **{name: replace(getattr(seen, name), ready=False, trouble="no luck", stalled=stalled)})
    )
    assert wait.message.endswith(": no luck")
    assert wait.stalled is stalled


def test_the_same_spec_is_begun_again_without_image_and_dependencies() -> None:
    missing = (Dependency(Key(Kind.CONTAINER, "db"), "Started", False),)
    seen = replace(facts(SHARED, dependencies=missing), image=None)
    assert [wait.reason for wait in needs(seen)] == ["ImageMissing", "DependencyNotMet"]
    assert list(around(seen)) == []


def test_a_private_sandbox_has_the_default_runtime_where_the_container_names_none() -> None:
    def of(spec: dict[str, Any]) -> Any:
        return next(one.spec for one in owned_objects(WEB, spec, "crun") if one.kind is Kind.SANDBOX)["runtime"]

    assert of(OWN) == "crun"
    assert of({**OWN, "runtime": "runc"}) == "runc"


def ran(spec: dict[str, Any], now: dict[str, Any]) -> ContainerFacts:
    """A container that runs as `spec` in a sandbox by runc, and is to be as `now`; the node's default is crun."""
    record = {"current": Attempt(1, "h", "s-1", "boot-1", 0.0, spec).to_json(), "attempt": 1}
    seen = facts(spec, default_runtime="crun")
    return replace(seen, obj=Object(WEB, spec=now, record=record))


@pytest.mark.parametrize("now", [OWN, {**OWN, "restart": {"policy": "Never"}}])
def test_another_default_runtime_leaves_what_runs_as_it_is(now: dict[str, Any]) -> None:
    assert list(ensure_owned(ran(OWN, now))) == []


@pytest.mark.parametrize("now", [{**OWN, "args": ["x"]}, {**OWN, "runtime": "crun"}])
def test_another_default_runtime_counts_when_the_container_is_made_anew(now: dict[str, Any]) -> None:
    (action,) = ensure_owned(ran(OWN, now))
    assert isinstance(action, EnsureOwned)
    assert action.object.spec["runtime"] == "crun"


def test_a_runtime_that_is_no_longer_named_gives_way_to_the_default() -> None:
    (action,) = ensure_owned(ran({**OWN, "runtime": "runc"}, OWN))
    assert isinstance(action, EnsureOwned)
    assert action.object.spec["runtime"] == "crun"
