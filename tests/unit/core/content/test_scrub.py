"""The slow look at every blob."""

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from core.content.scrub import Scrubber
from core.content.store import ContentStore
from core.digest import Digest

BLOBS = [random.Random(n).randbytes(700_000 + n) for n in range(3)] + [b"small", b""]


def waiting() -> None:
    raise AssertionError("nobody else brings blobs here")


def bring(store: ContentStore, blobs: Sequence[bytes] = BLOBS) -> None:
    with store.span() as span:
        for data in blobs:
            span.put(Digest.of(data), data, waiting)
        span.sync()


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    made = ContentStore(tmp_path)
    bring(made)
    return made


def rot(store: ContentStore, data: bytes) -> Digest:
    digest = Digest.of(data)
    with open(store.path(digest), "r+b") as file:
        file.write(b"\0" if data[:1] != b"\0" else b"\1")
    return digest


def through(scrubber: Scrubber, most: int) -> list[Digest]:
    """What a whole round finds, in steps of so many bytes."""
    scrubber.step(1)  # begins a round
    rounds, wrong = scrubber.rounds, []
    while scrubber.rounds == rounds:
        wrong += scrubber.step(most)
    return wrong


@pytest.mark.parametrize("most", [1000, 300_000, 10_000_000])
def test_what_is_whole_stays_and_what_rots_goes_however_small_the_steps(store: ContentStore, most: int) -> None:
    scrubber = Scrubber(store)
    assert through(scrubber, most) == []
    gone = rot(store, BLOBS[1])
    assert gone in [*through(scrubber, most), *through(scrubber, most)]
    assert set(store.walk()) == {Digest.of(data) for data in BLOBS} - {gone}


def test_a_step_reads_no_more_than_it_is_told(store: ContentStore) -> None:
    scrubber = Scrubber(store)
    steps = 0
    scrubber.step(1)
    rounds = scrubber.rounds
    while scrubber.rounds == rounds:
        scrubber.step(1 << 18)
        steps += 1
    assert steps >= 5  # 2.1 MB


def test_nothing_is_dropped_while_a_transfer_is_under_way(store: ContentStore) -> None:
    gone = rot(store, BLOBS[0])
    scrubber = Scrubber(store)
    with store.span():
        assert [*through(scrubber, 1 << 30), *through(scrubber, 1 << 30)] == []
    assert gone in set(store.walk())
    assert gone in [*through(scrubber, 1 << 30), *through(scrubber, 1 << 30)]


def test_an_empty_store_and_a_blob_that_goes_in_the_middle_are_no_fault(tmp_path: Path, store: ContentStore) -> None:
    assert Scrubber(ContentStore(tmp_path / "empty")).step(1000) == []
    scrubber = Scrubber(store)
    scrubber.step(1000)
    for digest in list(store.walk()):
        os.unlink(store.path(digest))
    assert through(scrubber, 1000) == []
