"""What a worker process is asked to do and what it answers, each one line of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Final

from core import errors
from core.layers import Compression
from core.snapshots.rooted import Beneath
from core.values import dataclass

_ERRORS: Final = {
    kind.__name__: kind
    for kind in (
        errors.Invalid, errors.OverLimit, errors.NoSpace, errors.Unsupported, errors.Corrupt, errors.Denied,
        errors.NotFound, errors.Busy, errors.Failed, errors.TimedOut,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Job:
    """One layer to apply to the empty folder `target`.

    `lower`: overlay's lower folders, topmost first, relative to `prefix` like `target` and `work`; when there are any
    the layer is applied on top of them, through an overlay mount that only the worker sees.
    """

    blob: str
    compression: Compression
    algorithm: str
    beneath: Beneath
    target: str
    max_bytes: int
    max_inodes: int
    scarce: bool
    seconds: float
    prefix: str
    lower: tuple[str, ...] = ()
    work: str = ""

    def line(self) -> bytes:
        """The request."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Job:
        """The inverse of `line`."""
        data: dict[str, Any] = json.loads(line)
        data["compression"] = Compression(data["compression"])
        data["beneath"] = Beneath(data["beneath"])
        data["lower"] = tuple(data["lower"])
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Done:
    """The layer is applied: the hex of its diff id, what it wrote, and whether it named the root folder."""

    hex: str
    bytes: int
    inodes: int
    named_root: bool


@dataclass(frozen=True, slots=True)
class Redo:
    """The layer must be applied on top of its parents; `why` is for people."""

    why: str


@dataclass(frozen=True, slots=True)
class Fault:
    """It cannot be applied: the error's class name, message and advice."""

    kind: str
    message: str
    advice: str = ""

    @classmethod
    def of(cls, error: errors.AgentError) -> Fault:
        """Take an error apart; a class that is not known on the other side travels as `Failed`."""
        kind = type(error).__name__
        return cls(kind if kind in _ERRORS else "Failed", error.message, error.advice)

    def error(self) -> errors.AgentError:
        """The inverse of `of`."""
        return _ERRORS.get(self.kind, errors.Failed)(self.message, advice=self.advice)


def answer_line(answer: Done | Redo | Fault) -> bytes:
    """The answer of a worker."""
    return json.dumps({type(answer).__name__: asdict(answer)}).encode() + b"\n"


def parse_answer(line: bytes) -> Done | Redo | Fault:
    """The inverse of `answer_line`; a line that is cut off is a `Fault` without a message."""
    try:
        ((kind, data),) = json.loads(line).items()
    except ValueError:
        return Fault("Failed", "")
    kinds: dict[str, type[Done | Redo | Fault]] = {"Done": Done, "Redo": Redo, "Fault": Fault}
    return kinds[kind](**data)
