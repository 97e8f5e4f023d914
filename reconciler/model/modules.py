"""What is otherwise for a WASM module or a virtual machine, read from the stored form alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

WASM: Final = "wasm"
"""The runtime of modules."""
VM: Final = "vm"
"""The runtime of virtual machines."""
PROCESSES: Final = frozenset({"runc", "crun", "runc-v2", WASM})
"""Runtimes of ours whose sandboxes are certainly no virtual machines."""


def network_mode(spec: Mapping[str, Any]) -> str:
    """The mode that a stored Sandbox or Container asks for: left out, it is a bridge, and nothing for a module."""
    default = "none" if spec.get("runtime") == WASM else "bridge"
    return str(spec.get("network", {}).get("mode", default))
