"""Errors, classified by what the caller should do.

Rules of this file: one attribute (`retry`) says whether another try may help; `category` is a word a person
can search for; `hint()` says what to do. Nobody matches on text. Only the CLI turns an error into words.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar


class Retry(StrEnum):
    """What another try is good for."""

    NOW = "now"
    """The state moved under us: read again and redo at once."""
    BACKOFF = "backoff"
    """The other side may answer later: try again, ever more slowly."""
    NEVER = "never"
    """Only a changed input helps: Stalled until somebody or something outside changes it."""


class Category(StrEnum):
    """The one word of a failure, shown to people and exported to telemetry."""

    INVALID = "invalid"
    NOT_FOUND = "not found"
    DENIED = "denied"
    CONFLICT = "conflict"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timed out"
    CORRUPT = "corrupt"
    NO_SPACE = "no space"
    UNSUPPORTED = "not supported"
    MISSING_TOOL = "missing tool"
    LIMIT = "over a limit"
    BUSY = "busy"
    FAILED = "failed"


class AgentError(Exception):
    """The root of all errors that may reach a person.

    `message` is one line that names the thing and the cause. `advice` is one line that says what to do; a subclass
    may override `hint()` instead.
    """

    retry: ClassVar[Retry] = Retry.NEVER
    category: ClassVar[Category] = Category.FAILED
    seconds: float = 0.0
    """Not before so many seconds is another try worth it; 0: the other side did not say."""

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def hint(self) -> str:
        """One line that says what the person can do; empty when there is nothing to say."""
        return self.advice


class Invalid(AgentError):
    """What was given cannot be right, whenever it is tried."""

    category = Category.INVALID


class NotFound(AgentError):
    """The thing named is not there."""

    category = Category.NOT_FOUND


class Vanished(NotFound):
    """A file or folder of the system's own was not there just now: a race, or somebody's hand. It may be again."""

    retry = Retry.BACKOFF


class Denied(AgentError):
    """The other side knows us not, or does not allow it."""

    category = Category.DENIED


class Conflict(AgentError):
    """Someone wrote first; read again and redo."""

    retry = Retry.NOW
    category = Category.CONFLICT


class Unavailable(AgentError):
    """The other side may answer later."""

    retry = Retry.BACKOFF
    category = Category.UNAVAILABLE


class TimedOut(AgentError):
    """It took longer than it may."""

    retry = Retry.BACKOFF
    category = Category.TIMEOUT


class Corrupt(AgentError):
    """Bytes differ from what their digest, size or format promised."""

    retry = Retry.BACKOFF
    category = Category.CORRUPT


class NoSpace(AgentError):
    """A disk, quota or inode table is full, or read-only."""

    retry = Retry.BACKOFF
    category = Category.NO_SPACE

    def hint(self) -> str:
        """Say how space comes back."""
        return self.advice or "Free space or inodes on the file system that holds root; it is tried again by itself."


class Unsupported(AgentError):
    """This node, driver or version cannot do it."""

    category = Category.UNSUPPORTED


class MissingTool(AgentError):
    """A program that the node needs is not installed. It is looked for again, since it may be installed later."""

    retry = Retry.BACKOFF
    category = Category.MISSING_TOOL

    def __init__(self, program: str, package: str) -> None:
        super().__init__(f"{program} is not on this node", advice=f"Install it: apt-get install {package}")
        self.program = program
        self.package = package


class OverLimit(AgentError):
    """A budget of bytes, inodes, depth or time would be passed."""

    category = Category.LIMIT


class Busy(AgentError):
    """Somebody else holds it; they will let go."""

    retry = Retry.BACKOFF
    category = Category.BUSY


class Failed(AgentError):
    """A program or call failed for a reason of its own; another try may go better."""

    retry = Retry.BACKOFF
    category = Category.FAILED


def from_os_error(error: OSError, doing: str) -> AgentError:
    """Turn an `OSError` met while `doing` something ("writing /x") into the class that says what to do."""
    import errno

    classes: Mapping[int, type[AgentError]] = {
        errno.ENOSPC: NoSpace,
        errno.EDQUOT: NoSpace,
        errno.EROFS: NoSpace,
        errno.ENOENT: Vanished,
        errno.EACCES: Denied,
        errno.EPERM: Denied,
        errno.EBUSY: Busy,
        errno.ENAMETOOLONG: Invalid,
    }
    return classes.get(error.errno or 0, Failed)(f"{doing}: {error.strerror or error}")
