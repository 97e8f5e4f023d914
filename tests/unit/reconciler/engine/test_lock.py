"""The lock within one process: flock counts open files, so two `EngineLock` exclude each other here as well."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from core import fsio
from core.clock import VirtualClock
from core.errors import Busy, Unsupported
from core.proc import ProcessId
from reconciler.engine.doorbell import Doorbell
from reconciler.engine.lock import PATIENCE, EngineLock, Holder, Role, check_mounts


class Acting(VirtualClock):
    """A clock on which others act while somebody waits: `then` is called at each sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.then: Callable[[], object] = lambda: None

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.then()


def lock(state: Path, role: Role, clock: VirtualClock | None = None) -> EngineLock:
    return EngineLock(state, state / "root", role, clock or VirtualClock())


def test_a_free_lock_is_taken_and_says_who_holds_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    agent = lock(state, Role.AGENT)
    agent.take()
    holder = agent.holder()
    assert holder is not None
    assert (holder.process.pid, holder.role, holder.root) == (os.getpid(), Role.AGENT, str(state / "root"))
    assert state.stat().st_mode & 0o777 == 0o700
    agent.release()
    assert agent.holder() is None
    agent.release()


def test_a_second_agent_is_told_of_the_first_at_once_and_changes_nothing(tmp_path: Path) -> None:
    first = lock(tmp_path, Role.AGENT)
    first.take()
    before = first.holder()
    clock = VirtualClock()
    second = lock(tmp_path, Role.AGENT, clock)
    started = clock.monotonic()
    with pytest.raises(Busy, match=f"the agent with pid {os.getpid()}") as told:
        second.take()
    assert f"kill {os.getpid()}" in told.value.hint()
    assert clock.monotonic() - started < 2
    assert first.holder() == before
    assert not second.held


def test_an_agent_waits_for_a_one_shot_rings_it_and_takes_over(tmp_path: Path) -> None:
    one_shot = lock(tmp_path, Role.APPLY)
    assert one_shot.try_take()
    bell = Doorbell.bind(tmp_path)
    clock = Acting()
    agent = lock(tmp_path, Role.AGENT, clock)
    seen: list[str] = []

    def work_on() -> None:
        if clock.monotonic() < 1010 or not one_shot.held:
            return
        assert one_shot.wanted_by_agent()
        assert bell.wait(0)
        one_shot.release()
        assert not one_shot.try_take()  # the agent waits: it comes first
        seen.append("handed over")

    clock.then = work_on
    agent.take(waiting=lambda holder: seen.append(holder.role))
    assert seen == ["apply", "handed over"]
    assert agent.held
    assert not one_shot.wanted_by_agent()
    assert not one_shot.try_take()
    agent.release()
    assert one_shot.try_take()
    bell.close()


def test_a_second_agent_is_told_of_the_one_that_waits(tmp_path: Path) -> None:
    one_shot = lock(tmp_path, Role.APPLY)
    one_shot.try_take()
    clock = Acting()
    told: list[Busy] = []

    def second_agent() -> None:
        if clock.monotonic() > 1005:
            one_shot.release()
            return
        with pytest.raises(Busy) as busy:
            lock(tmp_path, Role.AGENT).take()
        told.append(busy.value)

    clock.then = second_agent
    lock(tmp_path, Role.AGENT, clock).take()
    assert told
    assert all(f"the agent with pid {os.getpid()}" in str(one) for one in told)


def test_a_lock_held_by_nobody_that_can_be_named_is_borne_with_for_a_second(tmp_path: Path) -> None:
    for name in ("engine.lock", "engine.next"):
        clock = VirtualClock()
        held = fsio.Lock(tmp_path / name)
        held.acquire()
        held.write(Holder(ProcessId(os.getpid(), 1, "another boot"), Role.AGENT, "/", "then").to_json())
        started = clock.monotonic()
        with pytest.raises(Busy, match="does not say who it is"):
            lock(tmp_path, Role.AGENT, clock).take()
        assert PATIENCE <= clock.monotonic() - started < 2
        held.release()


def test_a_lock_whose_dead_holder_left_its_name_is_free(tmp_path: Path) -> None:
    (tmp_path / "engine.lock").write_text(Holder(ProcessId(1, 1, "b"), Role.AGENT, "/", "then").to_json())
    agent = lock(tmp_path, Role.AGENT)
    assert agent.holder() is None
    agent.take()
    assert agent.held


def test_asking_whether_an_agent_waits_does_not_look_like_one(tmp_path: Path) -> None:
    asked = fsio.Lock(tmp_path / "engine.next")
    assert asked.acquire(shared=True)
    assert not lock(tmp_path, Role.APPLY).wanted_by_agent()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "7", '{"pid": "x"}', '{"pid":1,"start":1,"boot":"b","role":"x"}']
)
def test_what_is_not_a_holder_names_nobody(text: str) -> None:
    assert Holder.parse(text) is None


def test_a_holder_is_read_back_as_it_was_written() -> None:
    holder = Holder(ProcessId(7, 9, "boot"), Role.APPLY, "/r", "2024-01-01T00:00:00.000Z")
    assert Holder.parse(holder.to_json()) == holder


def test_an_engine_in_a_mount_namespace_of_its_own_is_refused_unless_that_is_meant() -> None:
    with pytest.raises(Unsupported) as told:
        check_mounts(private_allowed=False, same=lambda: False)
    assert "--private-mounts" in told.value.hint()
    check_mounts(private_allowed=True, same=lambda: False)
    check_mounts(private_allowed=False, same=lambda: True)
    check_mounts(private_allowed=False, same=lambda: None)


def test_two_engines_of_one_root_exclude_each_other_whatever_their_state(tmp_path: Path) -> None:
    root = tmp_path / "root"
    first = EngineLock(tmp_path / "a", root, Role.AGENT, VirtualClock())
    first.take()
    clock = VirtualClock()
    second = EngineLock(tmp_path / "b", root, Role.AGENT, clock)
    with pytest.raises(Busy, match=rf"pid {os.getpid()}, with another --state.*it holds {root}") as told:
        second.take()
    assert f"kill {os.getpid()}" in told.value.hint()
    assert clock.monotonic() < 1002
    assert not second.held
    assert (tmp_path / "b" / "engine.lock").read_text() == ""
    one_shot = EngineLock(tmp_path / "c", root, Role.APPLY, VirtualClock())
    assert not one_shot.try_take()
    first.release()
    assert one_shot.try_take()
    one_shot.release()
    second.take()
    second.release()


def test_an_engine_whose_lock_file_was_removed_is_still_the_only_one(tmp_path: Path) -> None:
    first = lock(tmp_path, Role.AGENT)
    first.take()
    (tmp_path / "engine.lock").unlink()
    with pytest.raises(Busy, match="without its lock file"):
        lock(tmp_path, Role.AGENT).take()
    first.release()
