"""Overlay mounts as values (kernel Documentation/filesystems/overlayfs.rst)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from core.mounts import MountSpec

_PARAMETERS: Final = "/sys/module/overlay/parameters/"
_OFF: Final = ("index", "metacopy")
"""Features that tie a folder to the very folders it was first mounted with; a lineage is remounted at will."""


def overlay_mount(prefix: str, lower: Sequence[str], upper: str = "", work: str = "") -> MountSpec:
    """An overlay of `lower` (topmost first) and, when it is writable, `upper` with `work`; all relative to `prefix`."""
    options = ["nodev", *(f"{name}=off" for name in _OFF if os.path.exists(_PARAMETERS + name))]
    options.append("lowerdir=" + ":".join(lower))
    if upper:
        options += [f"upperdir={upper}", f"workdir={work}"]
    else:
        options.append("ro")
    return MountSpec("overlay", "overlay", tuple(options), prefix)
