"""Which shim is started, and what its runtime's options in the configuration mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Final

from core.runtime.shimv2 import messages
from core.runtime.wire import encode
from core.values import dataclass

SERVICE: Final = "service"
MOUNTS: Final = "mounts"


@dataclass(frozen=True, slots=True)
class ShimProgram:
    """The shim to start, by name or path. What may be in `options`:

    `binary` (of runc's shim: which runtime), `config` (of others: their file), `sandbox: service` (one shim a sandbox,
    by the sandbox service), `rootfs: mounts` (the root is given as mounts, not as a folder).
    """

    program: str
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_runc(self) -> bool:
        """Whether it is a shim of OCI runtimes, with their state in files that we can see."""
        return Path(self.program).name.startswith("containerd-shim-runc-")

    @property
    def has_sandboxes(self) -> bool:
        """Whether a sandbox is made by the shim's own sandbox service."""
        return self.options.get("sandbox") == SERVICE

    @property
    def wants_mounts(self) -> bool:
        """Whether it mounts a task's root itself."""
        return self.options.get("rootfs") == MOUNTS

    def any(self, root: Path) -> dict[str, object]:
        """The options that `Create` takes, in an Any (containerd.runc.v1.Options, runtimeoptions.v1.Options)."""
        if self.is_runc:
            values = {"binary_name": self.options.get("binary", ""), "root": str(root)}
            return {"type_url": messages.RUNC_OPTIONS_URL, "value": encode(messages.RUNC_OPTIONS, values)}
        if "config" not in self.options:
            return {}
        values = {"config_path": self.options["config"]}
        return {"type_url": messages.OTHER_OPTIONS_URL, "value": encode(messages.OTHER_OPTIONS, values)}

    def checkpointing(self, folder: Path, *, ending: bool) -> dict[str, object]:
        """The options that `Checkpoint` takes: only those of runc's shim are known."""
        if not self.is_runc:
            return {}
        values = {"exit": ending, "image_path": str(folder)}
        return {"type_url": messages.CHECKPOINT_OPTIONS_URL, "value": encode(messages.CHECKPOINT_OPTIONS, values)}
