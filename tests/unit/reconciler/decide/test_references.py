"""Who needs whom."""

from typing import Any

import pytest

from reconciler.decide.references import image_key, references, sandbox_key, secrets_of, volumes_of
from reconciler.model.identity import Key, Kind, private_sandbox_name
from reconciler.model.objects import Object


def test_an_image_is_named_or_referred_to() -> None:
    assert image_key({"image": "base"}) == Key(Kind.IMAGE, "base")
    assert image_key({"image": "reg.local:5000/team/web:1"}).name.startswith("web-")


def test_one_reference_in_two_spellings_is_one_image() -> None:
    assert image_key({"image": "busybox:latest"}) == image_key({"image": "docker.io/library/busybox:latest"})
    assert image_key({"image": "busybox:1"}) != image_key({"image": "busybox:2"})


def test_a_container_without_a_sandbox_has_one_of_its_own() -> None:
    assert sandbox_key("web", {}) == Key(Kind.SANDBOX, private_sandbox_name("web"))
    assert sandbox_key("web", {"sandbox": "shared"}) == Key(Kind.SANDBOX, "shared")


SPEC: dict[str, Any] = {
    "image": "base",
    "sandbox": "shared",
    "mounts": [{"path": "/a", "volume": "data"}, {"path": "/b", "secret": "tls"}, {"path": "/c", "tmpfs": {}}],
    "env": [
        {"name": "A", "value": "x"},
        {"name": "B", "valueFrom": {"node": "name"}},
        {"name": "C", "valueFrom": {"secret": {"name": "login", "key": "user"}}},
    ],
    "dependsOn": [{"container": "db"}],
}


def test_volumes_and_secrets_are_found_in_mounts_and_variables() -> None:
    assert list(volumes_of(SPEC)) == ["data"]
    assert list(secrets_of(SPEC)) == ["tls", "login"]


def test_a_container_needs_all_that_it_names() -> None:
    obj = Object(Key(Kind.CONTAINER, "web"), spec=SPEC)
    names = {str(key) for key in references(obj)}
    expected = ["image/base", "sandbox/shared", "volume/data", "secret/tls", "secret/login", "container/db"]
    assert names == set(expected)


@pytest.mark.parametrize(
    ("kind", "spec", "needs"),
    [
        (Kind.IMAGE, {"ref": "a"}, set()),
        (Kind.IMAGE, {"ref": "a", "credentials": {"secret": "login"}}, {"secret/login"}),
        (Kind.SANDBOX, {"runtime": "runc"}, set()),
        (Kind.SECRET, {"data": {}}, set()),
    ],
)
def test_other_kinds_need_little(kind: Kind, spec: dict[str, Any], needs: set[str]) -> None:
    assert {str(key) for key in references(Object(Key(kind, "x"), spec=spec))} == needs
