"""A task's root as mounts that its shim makes (a virtual machine takes the layers in by itself), not as a folder.

They are kept in the bundle from `prepare` on, so that whichever engine creates the task gives the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from core.mounts import MountSpec

_RECORD: Final = "rootfs.json"
_FOLDERS: Final = ("lowerdir=", "upperdir=", "workdir=")


def keep(rootfs: Sequence[MountSpec], bundle: Path) -> None:
    """Write them into a bundle that is being made."""
    (bundle / _RECORD).write_text(json.dumps([as_message(spec) for spec in rootfs]))


def kept(bundle: Path) -> list[dict[str, Any]]:
    """The `Mount` messages of a bundle; none when its root is a folder."""
    try:
        found: list[dict[str, Any]] = json.loads((bundle / _RECORD).read_bytes())
    except FileNotFoundError:
        return []
    return found


def as_message(spec: MountSpec) -> dict[str, Any]:
    """A mount as `containerd.types.Mount`, whose paths are all absolute: who mounts it stands somewhere else."""
    options = [_absolute(option, spec.prefix) for option in spec.options]
    return {"type": spec.type, "source": _joined(spec.source, spec) if spec.prefix else spec.source, "options": options}


def _joined(source: str, spec: MountSpec) -> str:
    return str(Path(spec.prefix, source)) if "bind" in spec.options else source


def _absolute(option: str, prefix: str) -> str:
    name = next((name for name in _FOLDERS if prefix and option.startswith(name)), None)
    if name is None:
        return option
    return name + ":".join(str(Path(prefix, part)) for part in option.removeprefix(name).split(":"))
