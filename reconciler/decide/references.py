"""Who names whom: the objects that an object's spec refers to, read from the stored form alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.transfer import reference
from reconciler.model.identity import Key, Kind, image_name, private_sandbox_name
from reconciler.model.kinds.texts import is_reference
from reconciler.model.objects import Object


def image_key(spec: Mapping[str, Any]) -> Key:
    """The Image object that a container's `image:` means."""
    image = str(spec["image"])
    return Key(Kind.IMAGE, image_name(str(reference.parse(image))) if is_reference(image) else image)


def sandbox_key(name: str, spec: Mapping[str, Any]) -> Key:
    """The Sandbox object that a container runs in."""
    return Key(Kind.SANDBOX, spec.get("sandbox") or private_sandbox_name(name))


def volumes_of(spec: Mapping[str, Any]) -> Iterator[str]:
    """The names of the volumes that a container mounts."""
    return (mount["volume"] for mount in spec.get("mounts", ()) if "volume" in mount)


def secrets_of(spec: Mapping[str, Any]) -> Iterator[str]:
    """The names of the secrets that a container mounts or takes variables from."""
    for mount in spec.get("mounts", ()):
        if "secret" in mount:
            yield mount["secret"]
    for variable in spec.get("env", ()):
        if "secret" in variable.get("valueFrom", {}):
            yield variable["valueFrom"]["secret"]["name"]


def references(obj: Object) -> frozenset[Key]:
    """Every object that `obj` needs."""
    match obj.kind:
        case Kind.CONTAINER:
            return frozenset(_of_container(obj))
        case Kind.IMAGE if "credentials" in obj.spec:
            return frozenset({Key(Kind.SECRET, obj.spec["credentials"]["secret"])})
        case Kind.SOURCE if (secret := auth_secret(obj.spec)) is not None:
            return frozenset({Key(Kind.SECRET, secret)})
        case _:
            return frozenset()


def auth_secret(spec: Mapping[str, Any]) -> str | None:
    """The name of the Secret with a Source's login; None: it needs none."""
    name = spec.get("git", {}).get("auth", {}).get("secret")
    return None if name is None else str(name)


def _of_container(obj: Object) -> Iterator[Key]:
    spec = obj.spec
    yield image_key(spec)
    yield sandbox_key(obj.name, spec)
    yield from (Key(Kind.VOLUME, name) for name in volumes_of(spec))
    yield from (Key(Kind.SECRET, name) for name in secrets_of(spec))
    yield from (Key(Kind.CONTAINER, wanted["container"]) for wanted in spec.get("dependsOn", ()))
