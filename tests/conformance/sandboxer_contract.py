"""What every Sandboxer promises: one suite, run by each driver's own test file with a `yard` fixture."""

from __future__ import annotations

from typing import Protocol

import pytest

from core.errors import AgentError, NotFound
from core.runtime.ports import NewSandbox, Sandboxer, SandboxPhase


class Yard(Protocol):
    """What a driver brings: itself, and a second life of itself."""

    boxer: Sandboxer

    def again(self) -> Sandboxer: ...


def wanted(id: str = "box", network: str = "none", **more: object) -> NewSandbox:
    """A sandbox to ask for."""
    return NewSandbox(id, {"name": id}, network, "tests", **more)  # type: ignore[arg-type]  # by name, in tests


class SandboxerContract:
    """The suite."""

    def test_a_sandbox_goes_from_absent_to_absent(self, yard: Yard) -> None:
        boxer = yard.boxer
        assert boxer.status("box").phase is SandboxPhase.ABSENT
        boxer.create(wanted())
        assert boxer.start("box").phase is SandboxPhase.READY
        assert list(boxer.sandboxes()) == ["box"]
        assert boxer.ping("box")
        boxer.stop("box", 1.0)
        assert boxer.status("box").phase is SandboxPhase.STOPPED
        assert boxer.wait("box", 1.0)
        boxer.shutdown("box")
        boxer.shutdown("box")
        assert boxer.status("box").phase is SandboxPhase.ABSENT
        assert list(boxer.sandboxes()) == []

    def test_one_that_is_there_is_adopted(self, yard: Yard) -> None:
        first = yard.boxer.create(wanted())
        assert yard.boxer.create(wanted()) == first
        assert yard.again().create(wanted()) == first

    def test_a_stopped_one_starts_again(self, yard: Yard) -> None:
        yard.boxer.create(wanted())
        yard.boxer.start("box")
        yard.boxer.stop("box", 0)
        assert yard.boxer.start("box").phase is SandboxPhase.READY

    def test_waiting_for_one_that_goes_on_ends(self, yard: Yard) -> None:
        yard.boxer.create(wanted())
        yard.boxer.start("box")
        assert not yard.boxer.wait("box", 0.05)

    def test_one_that_is_not_there_cannot_be_started_or_measured(self, yard: Yard) -> None:
        for call in (yard.boxer.start, yard.boxer.metrics):
            with pytest.raises(NotFound):
                call("box")
        assert not yard.boxer.ping("box")
        yard.boxer.stop("box", 0)

    def test_the_platform_is_an_image_platform(self, yard: Yard) -> None:
        system, architecture = yard.boxer.platform().split("/")
        assert system in ("linux", "wasi")
        assert architecture

    def test_a_name_that_is_a_path_is_refused(self, yard: Yard) -> None:
        for name in ("../x", "a/b", "", ".", "x" * 300):
            with pytest.raises(AgentError):
                yard.boxer.create(wanted(name))

    def test_counters_of_an_empty_sandbox_are_nothing(self, yard: Yard) -> None:
        yard.boxer.create(wanted())
        yard.boxer.start("box")
        assert yard.boxer.metrics("box").pids == 0
