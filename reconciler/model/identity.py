"""Who is who: kinds, keys, and the names made from them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from core.digest import hash8
from core.errors import Invalid
from core.values import dataclass

API_VERSION: Final = "reconciler/v1"
NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")


class Kind(StrEnum):
    """The kinds of objects; the first six are written by people."""

    IMAGE = "Image"
    SANDBOX = "Sandbox"
    CONTAINER = "Container"
    VOLUME = "Volume"
    SECRET = "Secret"
    SOURCE = "Source"
    SNAPSHOT = "Snapshot"
    NODE = "Node"
    REVISION = "Revision"


WRITTEN_BY_PEOPLE: Final = (Kind.IMAGE, Kind.SANDBOX, Kind.CONTAINER, Kind.VOLUME, Kind.SECRET, Kind.SOURCE)


FINALIZERS: Final[Mapping[Kind, str]] = {
    kind: kind.value.lower()
    for kind in (Kind.IMAGE, Kind.SANDBOX, Kind.CONTAINER, Kind.VOLUME, Kind.SNAPSHOT, Kind.SOURCE)
}
"""What stays of an object until its controller has undone it on the node; a Secret has nothing there."""


class Key(NamedTuple):
    """An object's name in the store."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind.value.lower()}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> Key:
        """Read `kind/name` (kind in any case, singular or plural); raises `Invalid`."""
        kind, slash, name = text.partition("/")
        if not slash:
            raise Invalid(f"{text!r} names no object", advice="Write KIND/NAME, such as container/web.")
        return cls(kind_of(kind), checked_name(name))


def kind_of(text: str) -> Kind:
    """The kind that `text` names, in any case, singular or plural; raises `Invalid` with the list of kinds."""
    wanted = text.lower()
    for kind in Kind:
        if wanted in (word := kind.value.lower(), f"{word}s", f"{word}es"):
            return kind
    kinds = ", ".join(kind.value for kind in Kind)
    raise Invalid(f"there is no kind {text!r}", advice=f"Kinds are: {kinds}.")


def checked_name(text: str) -> str:
    """`text` when it may be an object's name; raises `Invalid`. Names become paths, cgroups and namespaces."""
    if NAME.fullmatch(text) and ".." not in text:
        return text
    raise Invalid(
        f"{text[:80]!r} is not a name",
        advice="Use up to 63 of a-z, 0-9, '-' and single '.', beginning and ending with a-z or 0-9.",
    )


def spec_hash(value: Mapping[str, Any]) -> str:
    """Eight hex digits over all of `value` (JSON types), the same for the same content in any order of keys."""
    return hash8(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True))


@dataclass(frozen=True, slots=True)
class RuntimeId:
    """`<name>-<hash8 of spec>-<attempt>`: one attempt of one spec of one object, on this node, for ever."""

    name: str
    hash: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.name}-{self.hash}-{self.attempt}"

    @classmethod
    def parse(cls, text: str) -> RuntimeId | None:
        """The parts of an id, or None when it is none of ours."""
        found = _RUNTIME_ID.fullmatch(text)
        return None if found is None else cls(found[1], found[2], int(found[3]))


_RUNTIME_ID: Final = re.compile(r"([a-z0-9][-a-z0-9.]{0,62})-([0-9a-f]{8})-([0-9]{1,9})")


def image_name(normalised_ref: str) -> str:
    """The name of an Image made for a reference: its last path part and 8 hex digits of the reference's hash."""
    last = normalised_ref.split("@", 1)[0].rsplit("/", 1)[-1].split(":", 1)[0].lower()
    stem = re.sub(r"[^-a-z0-9.]+", "-", last).strip("-.") or "image"
    return f"{stem[:54].rstrip('-.')}-{hash8(normalised_ref)}"


def private_sandbox_name(container: str) -> str:
    """The name of the sandbox that a container without `sandbox:` owns."""
    return f"{container[:54].rstrip('-.')}-{hash8(f'Container/{container}')}"


SOURCE_MANAGER: Final = "source/"


def source_manager(name: str) -> str:
    """The manager of the objects of Source `name`."""
    return f"{SOURCE_MANAGER}{name}"


def source_of(manager: str) -> Key | None:
    """The Source whose manager this is; None: it is no Source's."""
    return Key(Kind.SOURCE, manager.removeprefix(SOURCE_MANAGER)) if manager.startswith(SOURCE_MANAGER) else None


def revision_name(source: str, number: int) -> str:
    """The name of the Revision object of what Source `source` applied as its `number`th."""
    end = f"-{number}" if len(source) <= 48 else f"-{hash8(source)}-{number}"
    return f"{source[:48].rstrip('-.')}{end}"


def instance_of(root_realpath: str) -> str:
    """Eight hex digits that every host-global name of the instance at this root carries."""
    return hashlib.sha256(root_realpath.encode()).hexdigest()[:8]
