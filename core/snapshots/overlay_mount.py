"""Overlay mounts as values (kernel Documentation/filesystems/overlayfs.rst)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from core.mounts import MountSpec

_PARAMETERS: Final = "/sys/module/overlay/parameters/"
_OFF: Final = ("index", "metacopy")
"""Features that tie a folder to the very folders it was first mounted with; a lineage is remounted at will."""


_ROOM: Final = 3000
"""Bytes of whole paths that surely fit into the page that mount(2) takes."""
_SPECIAL: Final = frozenset(":,\\")


def overlay_mount(prefix: str, lower: Sequence[str], upper: str = "", work: str = "") -> MountSpec:
    """An overlay of `lower` (topmost first) and, when it is writable, `upper` with `work`; all relative to `prefix`.

    A few layers are named by whole paths: reading them against `prefix` costs the mount a thread of its own.
    """
    if (len(lower) + 2) * (len(prefix) + 24) < _ROOM and not _SPECIAL & set(prefix):
        lower = [f"{prefix}/{path}" for path in lower]
        upper, work = (f"{prefix}/{path}" if path else "" for path in (upper, work))
        prefix = ""
    options = ["nodev", *(f"{name}=off" for name in _OFF if os.path.exists(_PARAMETERS + name))]
    options.append("lowerdir=" + ":".join(lower))
    if upper:
        options += [f"upperdir={upper}", f"workdir={work}"]
    else:
        options.append("ro")
    return MountSpec("overlay", "overlay", tuple(options), prefix)
