"""What each runtime lacks of the suite that they all pass, and why: such a test is skipped with these words."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import pytest

PROCESSES: Final = ("runc", "gvisor", "runc-v2", "vm")
"""Those that run an ordinary image's processes."""
EVERY: Final = (*PROCESSES, "wasm")

_MODULE: Final = "a module is one function that runs: nothing else can be started in it"
LACKS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "runc": {},
        "runc-v2": {},
        "vm": {},
        "gvisor": {},
        "wasm": {
            "exec": _MODULE,
            "probe": _MODULE,
            "oom": "memory.grow beyond the limit is refused, so a module is never killed for it",
            "grace": "WASI has no signals, so a module cannot ignore one",
            "localhost": "a module has no network",
            "ports": "a module has no network",
        },
    }
)
"""By runtime, then by the name that a test asks for."""


def needs(runtime: str, what: str) -> None:
    """Skip the test if the runtime lacks that."""
    if (why := LACKS[runtime].get(what)) is not None:
        pytest.skip(f"{runtime}: {why}")
