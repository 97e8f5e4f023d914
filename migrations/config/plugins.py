"""Names of containerd's plugins: how version 1's short names are called since, and which were renamed or went.

Rules of this file: literal tables, and the functions over them.
"""

from __future__ import annotations

import re
from typing import Final

from migrations.config.tree import Node
from migrations.config.work import Outcome, Work

CRI: Final = "io.containerd.grpc.v1.cri"
IMAGES: Final = "io.containerd.cri.v1.images"
RUNTIME: Final = "io.containerd.cri.v1.runtime"
LINUX: Final = "io.containerd.runtime.v1.linux"
AUFS: Final = "io.containerd.snapshotter.v1.aufs"
TASK: Final = "io.containerd.runtime.v2.task"
SHIMS: Final = "io.containerd.shim.v1.manager"
TRANSFER: Final = "io.containerd.transfer.v1.local"
VERIFIER: Final = "io.containerd.image-verifier.v1.bindir"
NRI: Final = "io.containerd.nri.v1.nri"
LISTS: Final = ("disabled_plugins", "required_plugins")

SHORT: Final = {
    "cri": CRI,
    "cgroups": "io.containerd.monitor.v1.cgroups",
    "linux": LINUX,
    "scheduler": "io.containerd.gc.v1.scheduler",
    "bolt": "io.containerd.metadata.v1.bolt",
    "task": TASK,
    "opt": "io.containerd.internal.v1.opt",
    "restart": "io.containerd.internal.v1.restart",
    "tracing": "io.containerd.internal.v1.tracing",
    "otlp": "io.containerd.tracing.processor.v1.otlp",
    **{name: f"io.containerd.snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper")},
    **{name: f"io.containerd.snapshotter.v1.{name}" for name in ("native", "overlayfs", "zfs")},
}
_WINDOWS: Final = ("windows", "windows-lcow")

RENAMED: Final = {
    "io.containerd.monitor.v1.cgroups": "io.containerd.monitor.task.v1.cgroups",
    "io.containerd.internal.v1.restart": "io.containerd.monitor.container.v1.restart",
}
"""From version 2 to 3."""

GONE: Final = {
    LINUX: "the shim of containerd 1.0 went with containerd 2.0; io.containerd.runc.v2 replaced it",
    AUFS: "aufs went with containerd 2.0; overlayfs replaced it",
}

_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_ID_PARTS: Final = 4


def long_name(short: str) -> tuple[str, bool]:
    """The id of a plugin that version 1 calls `short`, and whether that had to be guessed."""
    if "." in short:
        return short, False
    if short in SHORT:
        return SHORT[short], False
    if short.endswith("-service"):
        return f"io.containerd.service.v1.{short}", False
    kind = "snapshotter" if short in _WINDOWS else "grpc"
    return f"io.containerd.{kind}.v1.{short}", True


def is_id(name: str) -> bool:
    """Whether `name` may be a plugin's id since version 2: `io.containerd.<type>.v<n>[.<name>]`."""
    parts = name.split(".")
    return len(parts) >= _ID_PARTS and all(map(_PART.fullmatch, parts))


def is_name(name: str) -> bool:
    """Whether `name` may be a plugin's name in version 1: a word, or an id."""
    return bool(_PART.fullmatch(name)) or is_id(name)


def check_names(work: Work) -> None:
    """Raise `BadDocument` for a plugin's name that cannot be, in the tables and in the lists."""
    fits = is_name if work.version == 1 else is_id
    for name, node in work.table("plugins").entries.items():
        if not fits(name) and node.place is not None:
            raise node.place.bad("is no plugin's name", _advice(name, work.version))
    for key in LISTS:
        listed = work.get(key)
        for name in listed.value if listed is not None and isinstance(listed.value, list) else ():
            if isinstance(name, str) and not fits(name) and listed is not None and listed.place is not None:
                raise listed.place.bad(f"names {name!r}, which is no plugin", _advice(name, work.version))


def _advice(name: str, version: int) -> str:
    if version > 1 and is_name(name):
        return f"Short names are of version 1: write {long_name(name)[0]}, or remove version = {version}."
    return "An id is io.containerd.<type>.v<number>.<name>."


def rename_in_lists(work: Work, names: dict[str, str], how: str, gone: dict[str, str] | None = None) -> None:
    """Give plugins their new names in `disabled_plugins` and `required_plugins`, and take out what is gone."""
    for key in LISTS:
        node = work.get(key)
        if node is None or not isinstance(node.value, list):
            continue
        kept = [names.get(name, name) for name in node.value if name not in (gone or {})]
        kept = list(dict.fromkeys(kept))
        if kept != node.value:
            _told(work, key, node, names, gone or {}, how)
            node.set(kept)


def _told(work: Work, key: str, node: Node, names: dict[str, str], gone: dict[str, str], how: str) -> None:
    said = [f"{name} → {names[name]}" for name in node.value if name in names]
    said += [f"{name} is taken out: {gone[name]}" for name in node.value if name in gone]
    before = [work.notes[origin].why for origin in node.origins if origin in work.notes]
    for origin in node.origins:
        work.notes.pop(origin, None)
    work.note(node, Outcome.TRANSLATED, "; ".join([*before, f"{how}: {', '.join(said)}" if said else how]))
