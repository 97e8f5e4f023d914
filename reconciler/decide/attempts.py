"""A container's durable memory: attempts, exits, the switch in hand. Read from and written to `Object.record`.

Rules of this file: an attempt's number is recorded before anything of that number is made, and never used again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any, Final

from core.retrying import delay
from core.values import dataclass
from reconciler.decide.health import UNHEALTHY
from reconciler.model.identity import RuntimeId, spec_hash

IN_PLACE: Final = ("restart", "probes", "stop", "log", "dependsOn", "resources", "hooks")
"""Spec fields that change without a restart (rule 16)."""
OF_THE_SANDBOX: Final = ("runtime", "network")
"""Spec fields that belong to the private sandbox; a change there arrives as another sandbox."""
STOPPED_BY_HAND: Final = "StoppedByHand"
"""Why an attempt ended that a person asked to stop: it counts as no failure, and runs again when that is over."""
STEADY_AFTER: Final = 600.0
"""Seconds of running after which a crash counts as the first again."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to run one spec: what it was made from."""

    attempt: int
    hash: str
    sandbox: str
    boot: str
    at: float
    spec: Mapping[str, Any] = field(default_factory=dict)
    image: Mapping[str, Any] = field(default_factory=dict)
    started: bool = False
    """Whether it may have been started (recorded before the start, where it matters)."""
    checkpoint: str = ""
    """The checkpoint that it goes on from, among those that were taken in; "": it starts afresh."""

    def id(self, name: str) -> str:
        """The task's id."""
        return str(RuntimeId(name, self.hash, self.attempt))

    @property
    def policy(self) -> str:
        """The restart policy it was made under."""
        return str(self.spec.get("restart", {}).get("policy", "Always"))

    def to_json(self) -> dict[str, Any]:
        """A form for the record; what versions without checkpoints do not know is left out where it says nothing."""
        whole = {name: getattr(self, name) for name in self.__slots__}
        return whole if self.checkpoint else {name: value for name, value in whole.items() if name != "checkpoint"}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Attempt | None:
        """The inverse of `to_json`; None stays None."""
        return None if data is None else cls(**data)


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended. `code` is None when nobody saw it; `reason` a CamelCase word."""

    attempt: int
    code: int | None
    at: float
    oom: bool = False
    reason: str = "Error"

    def to_json(self) -> dict[str, Any]:
        """A form for the record."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def failed(self) -> bool:
        """Whether it counts as a failure."""
        return self.code != 0 or self.reason == UNHEALTHY


@dataclass(frozen=True, slots=True)
class Memory:
    """The whole record of a container."""

    attempt: int = 0
    current: Attempt | None = None
    previous: Attempt | None = None
    """The attempt that runs, or ran well, while `current` is being prepared to replace it."""
    ended: Ended | None = None
    restarts: int = 0
    failures: int = 0
    """Crashes in a row: what the back-off grows with."""
    failed_switch: Mapping[str, str] | None = None
    """{hash, cause} of a spec that could not be switched to; the one before was started again."""
    started: int = 0
    """The last attempt whose startup probe has passed."""
    hooked: int = 0
    """The last attempt whose postStart hook has ended well."""
    unhealthy: Mapping[str, Any] | None = None
    """{attempt, cause} of an attempt that is being ended because a probe says so."""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Memory:
        """Read a record."""
        ended = record.get("ended")
        return cls(
            attempt=record.get("attempt", 0),
            current=Attempt.from_json(record.get("current")),
            previous=Attempt.from_json(record.get("previous")),
            ended=None if ended is None else Ended(**ended),
            restarts=record.get("restarts", 0),
            failures=record.get("failures", 0),
            failed_switch=record.get("failedSwitch"),
            started=record.get("startedUp", 0),
            hooked=record.get("hooked", 0),
            unhealthy=record.get("unhealthy"),
        )

    def condemned(self) -> str:
        """Why the current attempt is being ended, as a probe said; "" when it is not."""
        if self.current is None or self.unhealthy is None or self.unhealthy["attempt"] != self.current.attempt:
            return ""
        return str(self.unhealthy["cause"])

    def current_ended(self) -> Ended | None:
        """How the current attempt ended, or None while it has not."""
        if self.current is None or self.ended is None or self.ended.attempt != self.current.attempt:
            return None
        return self.ended


def next_attempt(memory: Memory, like: Attempt) -> Attempt:
    """`like` with the next unused number, not started, from no checkpoint."""
    return replace(like, attempt=memory.attempt + 1, started=False, checkpoint="")


def lasting(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What of a container's spec replaces it when it changes."""
    return {name: value for name, value in spec.items() if name not in IN_PLACE and name not in OF_THE_SANDBOX}


def container_hash(spec: Mapping[str, Any], image: Mapping[str, Any], secrets: Mapping[str, str]) -> str:
    """Eight hex digits over all that replaces a container when it changes: its spec without what changes in place, the
    image's digest and the content of the secrets it uses.
    """
    kept = lasting(spec)
    kept["image"] = str(image.get("digest", ""))
    return spec_hash({"spec": kept, "secrets": dict(secrets)})


def restart_delay(failures: int, most: float) -> float:
    """Seconds between an exit and the next start: none after the first, then 1, 2, 4 … up to `most`."""
    return 0.0 if failures <= 1 else min(most, delay(failures - 1, first=1.0, most=most, jitter=0.5))


def failures_after(memory: Memory, ended: Ended) -> int:
    """Crashes in a row, this one included: a run of ten minutes starts the count anew."""
    started = memory.current.at if memory.current is not None else ended.at
    return 1 if ended.at - started >= STEADY_AFTER else memory.failures + 1
