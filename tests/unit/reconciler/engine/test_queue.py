import itertools
import threading

import pytest

from core.clock import SystemClock, VirtualClock
from reconciler.engine.queue import ON_ADD, ON_DONE, ON_TAKE, IllegalMove, Slot, WorkQueue
from reconciler.model.identity import Key, Kind


def key(name: str) -> Key:
    return Key(Kind.CONTAINER, name)


A, B, C = key("a"), key("b"), key("c")


def drain(queue: WorkQueue) -> list[Key]:
    taken = []
    while (one := queue.take(0)) is not None:
        taken.append(one)
        queue.done(one)
    return taken


def test_adding_is_decided_for_every_slot() -> None:
    assert {before: ON_ADD[before] for before in Slot} == {
        Slot.IDLE: Slot.QUEUED,
        Slot.QUEUED: Slot.QUEUED,
        Slot.ACTIVE: Slot.REDO,
        Slot.REDO: Slot.REDO,
    }


def test_only_a_queued_key_can_be_taken() -> None:
    assert dict(ON_TAKE) == {Slot.QUEUED: Slot.ACTIVE}


def test_only_a_key_in_hand_can_be_done_and_leaves_the_hand() -> None:
    assert set(ON_DONE) == {Slot.ACTIVE, Slot.REDO}
    assert not set(ON_DONE.values()) & set(ON_DONE)


def test_a_key_added_while_active_runs_exactly_once_more() -> None:
    queue = WorkQueue(VirtualClock())
    queue.add(A)
    assert queue.take(0) == A
    queue.add(A)
    queue.add(A)
    assert queue.take(0) is None
    queue.done(A)
    assert drain(queue) == [A]
    assert queue.idle()


def test_every_sequence_of_five_moves_follows_the_tables() -> None:
    for moves in itertools.product(("add", "take", "done"), repeat=5):
        queue = WorkQueue(VirtualClock())
        slot = Slot.IDLE
        for move in moves:
            if move == "add":
                queue.add(A)
                slot = ON_ADD[slot]
            elif move == "take":
                assert (queue.take(0) == A) is (slot in ON_TAKE)
                slot = ON_TAKE.get(slot, slot)
            elif slot in ON_DONE:
                queue.done(A)
                slot = ON_DONE[slot]
            else:
                with pytest.raises(IllegalMove):
                    queue.done(A)
            assert queue.idle() is (slot is Slot.IDLE)
            assert queue.active() == ((A,) if slot in (Slot.ACTIVE, Slot.REDO) else ())


def test_keys_come_out_in_the_order_they_came_in_once_each() -> None:
    queue = WorkQueue(VirtualClock())
    for one in (B, A, C, A, B):
        queue.add(one)
    assert drain(queue) == [B, A, C]


def test_a_delayed_key_comes_out_when_it_is_due_and_not_before() -> None:
    clock = VirtualClock()
    queue = WorkQueue(clock)
    queue.add_after(A, 5)
    assert queue.next_due() == 5
    assert queue.idle()
    assert queue.take(0) is None
    clock.advance(5)
    assert queue.next_due() == 0
    assert not queue.idle()
    assert drain(queue) == [A]
    assert queue.next_due() is None


def test_who_gives_back_the_last_key_says_that_nothing_is_left() -> None:
    said: list[int] = []
    queue = WorkQueue(VirtualClock(), rested=lambda: said.append(queue.idle()))
    queue.add(A)
    queue.add(B)
    for one in (A, B):
        assert queue.take(0) == one
    queue.done(A)
    assert said == []
    queue.add(B)
    queue.done(B)
    assert said == []
    assert drain(queue) == [B]
    assert said == [True]


@pytest.mark.parametrize(("first", "second"), [(3, 9), (9, 3)])
def test_of_two_delays_the_earlier_one_counts(first: float, second: float) -> None:
    clock = VirtualClock()
    queue = WorkQueue(clock)
    queue.add_after(A, first)
    queue.add_after(A, second)
    clock.advance(3)
    assert drain(queue) == [A]
    clock.advance(9)
    assert drain(queue) == []


def test_a_delayed_key_added_by_hand_runs_at_once_and_its_old_delay_is_gone() -> None:
    clock = VirtualClock()
    queue = WorkQueue(clock)
    queue.add_after(A, 5)
    queue.add(A)
    assert queue.take(0) == A
    queue.add_after(A, 60)
    queue.done(A)
    clock.advance(59)
    assert drain(queue) == []
    clock.advance(1)
    assert drain(queue) == [A]


def test_a_delay_that_ends_while_the_key_is_worked_on_makes_one_more_run() -> None:
    clock = VirtualClock()
    queue = WorkQueue(clock)
    queue.add(A)
    queue.take(0)
    queue.add_after(A, 0.0)
    assert queue.take(0) is None
    queue.done(A)
    assert drain(queue) == [A]


def test_a_key_out_of_scope_never_enters() -> None:
    clock = VirtualClock()
    queue = WorkQueue(clock, accepts=lambda one: one == A)
    for one in (A, B):
        queue.add(one)
        queue.add_after(one, 1)
    clock.advance(1)
    assert drain(queue) == [A]


def test_a_stopped_queue_hands_out_nothing_but_takes_back_what_is_in_hand() -> None:
    queue = WorkQueue(VirtualClock())
    queue.add(A)
    queue.add(B)
    assert queue.take(0) == A
    queue.stop()
    assert queue.take() is None
    queue.done(A)
    assert queue.active() == ()


def test_somebody_who_waits_learns_of_a_delay_after_the_one_who_knew_it_took_other_work() -> None:
    queue = WorkQueue(SystemClock())
    taken: list[Key] = []
    both = threading.Semaphore(0)

    def take() -> None:
        one = queue.take(10)
        assert one is not None
        taken.append(one)  # and never done: it is a long piece of work
        both.release()

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    queue.add_after(A, 0.05)
    queue.add(B)
    assert both.acquire(timeout=5)
    assert both.acquire(timeout=5)
    for thread in threads:
        thread.join()
    assert sorted(taken) == [A, B]


def test_no_key_is_ever_in_two_hands_and_none_is_lost() -> None:
    queue = WorkQueue(SystemClock())
    keys = [key(f"k{n}") for n in range(20)]
    in_hand: set[Key] = set()
    seen: dict[Key, int] = dict.fromkeys(keys, 0)
    clashes: list[Key] = []

    def work() -> None:
        while (one := queue.take()) is not None:
            if one in in_hand:
                clashes.append(one)
            in_hand.add(one)
            seen[one] += 1
            if seen[one] < 20:
                queue.add(one) if seen[one] % 2 else queue.add_after(one, 0.0)
            in_hand.discard(one)
            queue.done(one)
            if all(count >= 20 for count in seen.values()):
                queue.stop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for one in keys:
        queue.add(one)
    for thread in threads:
        thread.join(timeout=20)
    assert not clashes
    assert all(count == 20 for count in seen.values())
