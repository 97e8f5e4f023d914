"""What a reconcile ends in: exactly one of three words, derived by the engine, never chosen by a controller."""

from __future__ import annotations

from core.errors import AgentError, Category, Retry
from core.values import dataclass


@dataclass(frozen=True, slots=True)
class Settled:
    """Nothing to do until an input changes."""


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """We are at it: look again after `seconds` (None: when something it waits for changes)."""

    reason: str
    message: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Blocked:
    """Only a person or the outside can help; looked at again every five minutes all the same."""

    reason: str
    message: str
    hint: str = ""


Outcome = Settled | RetryAfter | Blocked


@dataclass(frozen=True, slots=True)
class Fault:
    """The last failure on an object: which phase of which action, why, what to do. Kept until it is overcome.

    `failures` counts failures in a row; `until` is the monotonic second before which it is not tried again. `inputs`
    are the generations of the object and of those it names, and what was asked of it at the node: with others the fault
    is forgotten.
    """

    phase: str
    action: str
    """Identifies the action that failed: it is tried again only after `until`; any other action clears the fault."""
    category: Category
    message: str
    hint: str
    retry: Retry
    failures: int = 1
    until: float = 0.0
    inputs: tuple[int, ...] = ()

    @property
    def reason(self) -> str:
        """A CamelCase word for conditions, such as `FetchingNotFound`."""
        return "".join(part.capitalize() for part in (self.phase + " " + self.category.value).split())


def fault_of(
    error: AgentError, phase: str, action: str, *, failures: int, until: float, inputs: tuple[int, ...]
) -> Fault:
    """What is kept of an error that an action raised."""
    return Fault(phase, action, error.category, error.message, error.hint(), error.retry, failures, until, inputs)
