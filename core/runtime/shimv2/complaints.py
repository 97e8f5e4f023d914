"""What went wrong with a shim, in words that name it and say what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from core.errors import AgentError, Failed, TimedOut
from core.runtime import conmon
from core.runtime.ttrpc.client import ConnectionLost
from core.runtime.wire import Malformed

_MOST_READ: Final = 4 << 10


def explained(error: AgentError, program: str, bundle: Path) -> AgentError:
    """The error of a call to the shim of `bundle`: what a runtime complained of, or what became of the shim itself."""
    name = Path(program).name
    if type(error) is Failed:
        return conmon.complaint(error.message)
    if isinstance(error, ConnectionLost):
        words = f"the shim {name} went away in the middle of a call: {last_words(bundle) or error.message}"
        return ConnectionLost(words, advice=f"See that {program} is a shim of containerd's and works on this node.")
    if isinstance(error, Malformed):
        advice = "Is `path` really a containerd shim, and of a version that speaks the protocol that it says?"
        return Malformed(f"the shim {name} answered with nonsense: {error.message}", advice=advice)
    if isinstance(error, TimedOut):
        advice = "It is killed when its container is deleted or started anew; its own log may say why it hangs."
        return TimedOut(f"the shim {name} hangs: {error.message}", advice=advice)
    return error


def last_words(bundle: Path) -> str:
    """The last line that a shim wrote to its log; empty when it wrote none."""
    try:
        with open(bundle / "log", "rb") as source:
            source.seek(max(0, os.fstat(source.fileno()).st_size - _MOST_READ))
            text = source.read(_MOST_READ).decode("utf-8", "replace")
    except OSError:
        return ""
    return conmon.said(text) if text.strip() else ""
