"""What is otherwise for a WASM module, read from the stored form alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

WASM: Final = "wasm"
"""The runtime of modules."""


def network_mode(spec: Mapping[str, Any]) -> str:
    """The mode that a stored Sandbox or Container asks for: left out, it is a bridge, and nothing for a module."""
    default = "none" if spec.get("runtime") == WASM else "bridge"
    return str(spec.get("network", {}).get("mode", default))
