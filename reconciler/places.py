"""Where a node's things lie: two folders, and every name below them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from core.values import dataclass
from reconciler.model.identity import instance_of

IN_ROOT: Final = (
    *("store.db*", "applied", "content", "snapshots", "volumes", "logs", "attempts", "sources", "wasm", "vm"),
    *("checkpoints", ".staging-*"),
)
"""The names directly in `root` that are ours, as patterns of fnmatch: what an uninstall removes, and nothing else.

Whoever puts another name there adds it here; a test of uninstalling finds what was forgotten."""
IN_STATE: Final = (
    *("engine.*", "doorbell", "bundles", "exits", "netns", "ranges", "sandboxes", "attempts", "network*"),
    *("runc", "crun", "oci-*", "vm", "wasm", "shim", "requests", "runtimes.json", "migrated-*", ".staging-*"),
)
"""The same for a `state` that others use too, as nobody should."""


@dataclass(frozen=True, slots=True)
class Paths:
    """`root` outlives a reboot; `state` may vanish with it."""

    root: Path
    state: Path

    @property
    def store_file(self) -> Path:
        """The object store."""
        return self.root / "store.db"

    @property
    def content(self) -> Path:
        """Blobs."""
        return self.root / "content"

    @property
    def snapshots(self) -> Path:
        """Root file systems, a folder a driver."""
        return self.root / "snapshots"

    @property
    def sources(self) -> Path:
        """What was fetched, a folder a Source."""
        return self.root / "sources"

    @property
    def volumes(self) -> Path:
        """Volumes by name."""
        return self.root / "volumes"

    @property
    def logs(self) -> Path:
        """Logs, a folder a container."""
        return self.root / "logs"

    @property
    def attempts(self) -> tuple[Path, Path]:
        """What tasks need beside their roots: on disk, and where it may vanish."""
        return self.root / "attempts", self.state / "attempts"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints that were taken in to be gone on from, once."""
        return self.root / "checkpoints"

    @property
    def instance(self) -> str:
        """Eight hex digits in every host-global name."""
        return instance_of(os.path.realpath(self.root))

    @property
    def group(self) -> str:
        """The instance's cgroup."""
        return f"/reconciler-{self.instance}"


def resolve_paths(root: str | None, state: str | None) -> Paths:
    """What `--root` and `--state` mean; None: /var/lib and /run for root, the XDG folders for everybody else."""
    if os.geteuid() == 0:
        defaults = ("/var/lib/reconciler", "/run/reconciler")
    else:
        home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/reconciler-{os.geteuid()}"
        defaults = (f"{home}/reconciler", f"{runtime}/reconciler")
    return Paths(Path(os.path.abspath(root or defaults[0])), Path(os.path.abspath(state or defaults[1])))
