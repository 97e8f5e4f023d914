"""A task's runtime-spec as its guest needs it. Pure.

Rules of this file: what is mounted from below our own state folder (secrets, files, the sandbox's own) is carried into
the guest's memory and never lies on a disk of it; every other host path is shared with the guest. What only the host
has is refused, or left out where the machine itself takes its place (namespaces, control groups).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from core.errors import Unsupported
from core.runtime.vm.machine import TAG
from core.values import dataclass

CARRIED: Final = "/run/carried"
SHARED: Final = f"/run/shared/{TAG}"
SHM: Final = "/run/sandbox/shm"
_SHARED_NAMESPACES: Final = ("network", "ipc", "uts")


@dataclass(frozen=True, slots=True)
class ForGuest:
    """`shared` and `carried` map host paths to where the guest finds them: names below the share, guest paths."""

    spec: Mapping[str, Any]
    shared: Mapping[str, str]
    carried: Mapping[str, str]


def translate(id: str, spec: Mapping[str, Any], state: str) -> ForGuest:
    """The spec for the guest; raises `Unsupported` for devices of this node and for namespaces that cannot be shared.

    `state`: the folder below which sources are carried.
    """
    linux = dict(spec["linux"])
    if linux.get("devices"):
        raise Unsupported("devices of the node in a virtual machine", advice="Leave `security.devices` out.")
    linux["namespaces"] = [one for one in linux["namespaces"] if not _is_the_guests(one)]
    linux["cgroupsPath"] = f"/tasks/{id}"
    shared: dict[str, str] = {}
    carried: dict[str, str] = {}
    found = (shared, carried)
    mounts = [
        {**mount, "source": _place(f"{id}/{number}", mount["destination"], mount["source"], state, found)}
        if mount["type"] == "bind"
        else mount
        for number, mount in enumerate(spec["mounts"])
    ]
    process = dict(spec["process"])
    process.pop("apparmorProfile", None)  # the host's: its kernel is not this task's
    return ForGuest({**spec, "linux": linux, "mounts": mounts, "process": process}, shared, carried)


def _is_the_guests(namespace: Mapping[str, Any]) -> bool:
    """Whether the guest's own is meant: what the sandbox shares."""
    if namespace["type"] in _SHARED_NAMESPACES:
        return True
    if namespace.get("path"):
        raise Unsupported(f"a {namespace['type']} namespace of the node in a virtual machine")
    return False


def _place(name: str, target: str, source: str, state: str, found: tuple[dict[str, str], dict[str, str]]) -> str:
    shared, carried = found
    if target == "/dev/shm":
        return SHM
    if source == state or source.startswith(f"{state}/"):
        return carried.setdefault(source, f"{CARRIED}/{name}")
    return f"{SHARED}/{shared.setdefault(source, name)}"
