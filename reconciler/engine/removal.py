"""Taking a node's folders away when everything on the node is gone.

Rules of this file: only names that are ours are removed, but all of a `state` that nobody else may enter: it would not
outlive a reboot either. Nothing is entered that is mounted there. The caller holds the engine's lock, so that nobody
fills the folders meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from core import cgroups, fsio
from core.clock import Clock
from core.errors import from_os_error
from core.runtime.table import RuntimeTable
from reconciler.engine.networks import Networks
from reconciler.places import IN_ROOT, IN_STATE, Paths


def shut_down(networks: Networks, runtimes: RuntimeTable, group: str, clock: Clock) -> None:
    """End the sandboxes that no object stands for (their store was lost), the networks, the instance's groups."""
    networks.sweep(())
    for id in list(runtimes.sandboxes()):
        runtimes.shutdown_sandbox(id)
    cgroups.remove_everywhere(group, cgroups.hierarchies(), clock)


def remove_folders(paths: Paths, keep: Collection[str]) -> list[Path]:
    """Remove `state` and `root` but for the names in `keep`; returns what is left in them. Raises `AgentError`."""
    left = list(_remove_ours(paths.root, IN_ROOT, keep))
    if paths.state.is_dir() and paths.state != paths.root:
        private = paths.state.stat().st_mode & 0o077 == 0
        left += _remove_ours(paths.state, ("*",) if private else IN_STATE, ())
    return left


def _remove_ours(folder: Path, ours: Collection[str], keep: Collection[str]) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for entry in sorted(folder.iterdir()):
        if entry.name in keep or not any(fnmatchcase(entry.name, pattern) for pattern in ours):
            yield entry
            continue
        try:
            fsio.remove_tree(entry)
        except OSError as error:
            raise from_os_error(error, f"removing {error.filename or entry}") from error
    fsio.fsync_dir(folder)
    with suppress(OSError):  # something is left in it, or a disk is mounted there
        os.rmdir(folder)


def filled(volumes: Path) -> list[str]:
    """The names of volumes that hold anything."""
    if not volumes.is_dir():
        return []
    folders = (entry for entry in sorted(volumes.iterdir()) if not entry.name.startswith(fsio.STAGING))
    return [entry.name for entry in folders if entry.is_dir() and any(entry.iterdir())]
