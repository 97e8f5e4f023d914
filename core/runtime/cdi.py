"""Devices by CDI name, `vendor.com/class=name`: what the specifications of this node say that a task gets with each.

Container Device Interface, versions 0.3 to 1.x (SPEC.md): a device's own edits and those of its specification. Pure: a
specification comes as what its file holds.

Rules of this file: no hook is ever run, so a device that wants one is refused; so is what is not understood, since a
device with half of its edits would fail in ways that nobody could explain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any, Final

from core.errors import Invalid, NotFound, Unsupported
from core.runtime.node import Device
from core.runtime.spec import Mount
from core.values import dataclass

NAME: Final = re.compile(
    r"(?P<vendor>[A-Za-z][A-Za-z0-9_.-]*[A-Za-z0-9])/(?P<kind>[A-Za-z][A-Za-z0-9_-]*)=(?P<device>[A-Za-z0-9][A-Za-z0-9_.:-]*)"
)
_KNOWN: Final = frozenset({"env", "deviceNodes", "mounts", "additionalGids", "hooks"})
_VERSION: Final = re.compile(r"v?(?:0\.(?:[3-9]|\d\d)|1\.\d+)\.\d+")


@dataclass(frozen=True, slots=True)
class Edits:
    """What a task gets: variables (`NAME=value`), devices, mounts, additional groups."""

    env: Sequence[str] = ()
    devices: Sequence[Device] = ()
    mounts: Sequence[Mount] = ()
    groups: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Specification:
    """One file: `content` is what it holds; of files with the same device the one of the highest `priority` counts."""

    file: str
    priority: int
    content: Mapping[str, Any] = field(hash=False)


def edits(names: Iterable[str], specifications: Sequence[Specification]) -> Edits:
    """What the devices of these names bring. Raises `NotFound`, `Invalid`, `Unsupported`."""
    env: list[str] = []
    devices: list[Device] = []
    mounts: list[Mount] = []
    groups: list[int] = []
    seen: set[str] = set()
    for name in names:
        found, own = _device(name, specifications)
        whole = [("", found.content.get("containerEdits"))] if found.file not in seen else []
        seen.add(found.file)
        for _, part in [*whole, ("own", own.get("containerEdits"))]:
            wanted = _checked(part or {}, name, found.file)
            env += [str(pair) for pair in wanted.get("env") or ()]
            devices += [_node(node, found.file) for node in wanted.get("deviceNodes") or ()]
            mounts += [_mount(mount, found.file) for mount in wanted.get("mounts") or ()]
            groups += [int(group) for group in wanted.get("additionalGids") or ()]
    return Edits(tuple(env), tuple(devices), tuple(mounts), tuple(groups))


def _device(name: str, specifications: Sequence[Specification]) -> tuple[Specification, Mapping[str, Any]]:
    parts = NAME.fullmatch(name)
    if parts is None:
        raise Invalid(f"{name!r} is not the name of a CDI device", advice="Write vendor.com/class=name.")
    kind = f"{parts['vendor']}/{parts['kind']}"
    found = [
        (one, device)
        for one in specifications
        if one.content.get("kind") == kind
        for device in one.content.get("devices") or ()
        if device.get("name") == parts["device"]
    ]
    if not found:
        known = sorted(
            f"{one.content.get('kind')}={d.get('name')}" for one in specifications for d in one.content["devices"]
        )
        has = f"it has {', '.join(known[:10])}" if known else "no specification is there"
        raise NotFound(f"this node has no CDI device {name}: {has}", advice="Install the device's specification.")
    most = max(one.priority for one, _ in found)
    best = [pair for pair in found if pair[0].priority == most]
    if len(best) > 1:
        raise Invalid(
            f"CDI device {name} is in {best[0][0].file} and in {best[1][0].file}", advice="Remove one of them."
        )
    return best[0]


def checked(content: object, file: str) -> Mapping[str, Any]:
    """The content of a specification; raises `Invalid` for what is none, `Unsupported` for a version of later."""
    if not isinstance(content, Mapping) or not isinstance(content.get("kind"), str):
        raise Invalid(f"{file} is not a CDI specification", advice="It is a mapping with cdiVersion, kind and devices.")
    if not isinstance(content.get("devices"), list) or not all(isinstance(one, Mapping) for one in content["devices"]):
        raise Invalid(f"{file} has no list of devices", advice="See the CDI's SPEC.md.")
    if not _VERSION.fullmatch(str(content.get("cdiVersion"))):
        raise Unsupported(f"{file} is of CDI version {content.get('cdiVersion')}", advice="0.3 to 1.x are known.")
    return content


def _checked(part: object, name: str, file: str) -> Mapping[str, Any]:
    if not isinstance(part, Mapping):
        raise Invalid(f"{file}: containerEdits of {name} is not a mapping")
    if part.get("hooks"):
        advice = "Use a specification without hooks: no program of the node is run for a container here."
        raise Unsupported(f"CDI device {name} wants a hook of the node to be run ({file})", advice=advice)
    if unknown := sorted(set(part) - _KNOWN):
        raise Unsupported(f"CDI device {name} wants {', '.join(unknown)}, which is not known here ({file})")
    return part


def _node(node: Mapping[str, Any], file: str) -> Device:
    inside = str(node.get("path", ""))
    if not inside.startswith("/dev/") or ".." in inside.split("/"):
        raise Invalid(f"{file}: device node {inside!r} is not below /dev")
    return Device.at(str(node.get("hostPath") or inside), inside=inside, access=str(node.get("permissions") or "rwm"))


def _mount(mount: Mapping[str, Any], file: str) -> Mount:
    source, path = str(mount.get("hostPath", "")), str(mount.get("containerPath", ""))
    if not source.startswith("/") or not path.startswith("/"):
        raise Invalid(f"{file}: a mount from {source!r} to {path!r}: both must be absolute paths")
    options = [str(word) for word in mount.get("options") or ()]
    return Mount(path, source=source, read_only="ro" in options)
