"""Ranges of ids: one a sandbox, none twice."""

from pathlib import Path

import pytest

from core.errors import Unavailable
from core.runtime.id_ranges import COUNT, FIRST, SIZE, IdRanges


def test_no_two_sandboxes_have_the_same_range_and_each_gets_its_own_again(tmp_path: Path) -> None:
    ranges = IdRanges(tmp_path, count=8)
    taken = {name: ranges.take(name) for name in "abcdefgh"}
    assert sorted(taken.values()) == [FIRST + number * SIZE for number in range(8)]
    assert {name: IdRanges(tmp_path, count=8).take(name) for name in taken} == taken


def test_when_all_are_taken_that_is_said_until_one_is_given_back(tmp_path: Path) -> None:
    ranges = IdRanges(tmp_path, count=2)
    first, _ = ranges.take("a"), ranges.take("b")
    with pytest.raises(Unavailable, match="all 2 ranges"):
        ranges.take("c")
    ranges.give_back(first)
    ranges.give_back(first)
    assert ranges.take("c") == first


def test_a_range_whose_sandbox_is_gone_is_free_after_a_sweep(tmp_path: Path) -> None:
    ranges = IdRanges(tmp_path, count=1)
    ranges.sweep(lambda name: False)
    ranges.take("a")
    ranges.sweep(lambda name: name == "a")
    with pytest.raises(Unavailable):
        ranges.take("b")
    ranges.sweep(lambda name: False)
    assert ranges.take("b") == FIRST


def test_all_ranges_fit_into_what_ids_there_are() -> None:
    assert FIRST + COUNT * SIZE <= 1 << 31
