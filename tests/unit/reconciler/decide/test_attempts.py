"""What a container remembers."""

import pytest

from reconciler.decide.attempts import (
    Attempt,
    Ended,
    Memory,
    container_hash,
    failures_after,
    next_attempt,
    restart_delay,
)

FIRST = Attempt(1, "aaaaaaaa", "shared-11111111-1", "boot-1", 100.0, {"image": "web"}, {"digest": "d"}, True)


def test_an_attempt_is_read_back_as_it_was_written() -> None:
    assert Attempt.from_json(FIRST.to_json()) == FIRST
    assert Attempt.from_json(None) is None


def test_an_id_is_name_hash_and_number() -> None:
    assert FIRST.id("web") == "web-aaaaaaaa-1"


def test_a_record_is_read_back_as_it_was_written() -> None:
    ended = Ended(1, 3, 200.0, False, "Error")
    record = {"attempt": 2, "current": FIRST.to_json(), "ended": ended.to_json(), "restarts": 4, "failures": 5}
    assert Memory.of(record) == Memory(2, FIRST, None, ended, 4, 5)
    assert Memory.of({}) == Memory()


def test_the_end_of_an_older_attempt_is_not_that_of_the_current_one() -> None:
    older = Memory(2, next_attempt(Memory(1), FIRST), None, Ended(1, 0, 5.0))
    assert older.current_ended() is None
    assert Memory(1, FIRST, None, Ended(1, 0, 5.0)).current_ended() == Ended(1, 0, 5.0)


def test_the_next_attempt_has_an_unused_number_and_was_not_started() -> None:
    again = next_attempt(Memory(attempt=7), FIRST)
    assert (again.attempt, again.started, again.spec) == (8, False, FIRST.spec)


@pytest.mark.parametrize(("code", "failed"), [(0, False), (1, True), (137, True), (None, True)])
def test_any_end_but_code_0_is_a_failure(code: int | None, failed: bool) -> None:
    assert Ended(1, code, 0.0).failed is failed


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 4), (9, 128), (11, 300), (99, 300)]
)
def test_the_delay_doubles_from_a_second_to_the_most(failures: int, seconds: float) -> None:
    assert restart_delay(failures, 300.0) == pytest.approx(seconds)


def test_a_most_below_a_second_is_kept() -> None:
    assert restart_delay(5, 0.5) == 0.5


@pytest.mark.parametrize(("ran", "failures"), [(0.0, 4), (599.9, 4), (600.0, 1), (90_000.0, 1), (-50.0, 4)])
def test_ten_minutes_of_running_start_the_count_anew(ran: float, failures: int) -> None:
    assert failures_after(Memory(1, FIRST, failures=3), Ended(1, 1, FIRST.at + ran)) == failures


def test_the_hash_is_over_the_images_digest_and_not_its_name() -> None:
    def of(image: str, digest: str) -> str:
        return container_hash({"image": image}, {"digest": digest}, {})

    assert of("web", "d1") == of("other", "d1")
    assert of("web", "d1") != of("web", "d2")


@pytest.mark.parametrize("field", ["runtime", "network"])
def test_what_is_the_private_sandboxs_matter_is_not_in_the_hash(field: str) -> None:
    assert container_hash({field: "x"}, {}, {}) == container_hash({}, {}, {})


@pytest.mark.parametrize(("spec", "policy"), [({}, "Always"), ({"restart": {"policy": "Never"}}, "Never")])
def test_an_attempt_knows_the_policy_it_was_made_under(spec: dict[str, object], policy: str) -> None:
    assert Attempt(1, "", "", "", 0.0, spec).policy == policy
