"""The content store: right, whole and seen at once, or not there."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core import proc
from core.content.ingest import Ingest, WrongBytes
from core.content.store import BlobMissing, ContentStore
from core.digest import Digest, hash8
from core.errors import Busy, NoSpace, OverLimit
from core.syscalls import mount, umount

DATA = b"a blob of some bytes"
DIGEST = Digest.of(DATA)


class GaveUp(Exception):
    """Raised instead of waiting."""


def no_waiting() -> None:
    raise GaveUp


def partials(store: ContentStore) -> list[str]:
    return [name for name in os.listdir(store.folder / "ingest") if ".fresh-" not in name]


def bring(store: ContentStore, data: bytes = DATA, digest: Digest | None = None) -> None:
    with store.span() as span:
        span.put(digest or Digest.of(data), data, no_waiting)
        span.sync()


def test_a_blob_is_there_once_it_is_published_and_not_before(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    with store.span() as span, span.ingest(DIGEST, len(DATA), no_waiting) as writer:
        assert writer is not None
        writer.write(DATA)
        assert store.size(DIGEST) is None
        writer.publish()
        assert store.has(DIGEST, len(DATA))
    assert store.read(DIGEST, 100) == DATA
    assert list(store.walk()) == [DIGEST]
    assert partials(store) == []


def test_a_sha512_blob_is_kept_too(tmp_path: Path) -> None:
    hasher = Digest("sha512", "").hasher()
    hasher.update(DATA)
    digest = Digest.parse(f"sha512:{hasher.hexdigest()}")
    store = ContentStore(tmp_path)
    bring(store, DATA, digest)
    assert store.intact(digest)
    assert list(store.walk()) == [digest]


@pytest.mark.parametrize(
    ("what", "data", "size"),
    [
        ("one bit differs", b"A" + DATA[1:], len(DATA)),
        ("it is short", DATA[:-1], len(DATA)),
        ("it is empty", b"", len(DATA)),
        ("it is long", DATA + b"x", len(DATA)),
        ("the size says one more", DATA, len(DATA) + 1),
        ("the size says one less", DATA, len(DATA) - 1),
        ("the size says nothing", DATA, 0),
    ],
)
def test_wrong_bytes_are_never_seen(tmp_path: Path, what: str, data: bytes, size: int) -> None:
    def fill(writer: Ingest | None) -> None:
        assert writer is not None
        writer.write(data)
        writer.publish()

    store = ContentStore(tmp_path)
    with store.span() as span, pytest.raises(WrongBytes), span.ingest(DIGEST, size, no_waiting) as writer:
        fill(writer)
    assert list(store.walk()) == [], what
    assert partials(store) == []


def test_a_second_try_within_one_ingest_starts_from_the_first_byte(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    with store.span() as span, span.ingest(DIGEST, len(DATA), no_waiting) as writer:
        assert writer is not None
        writer.write(DATA[:7])
        writer.restart()
        assert writer.write(DATA[:5]) == 5
        writer.write(DATA[5:])
        writer.publish()
    assert store.read(DIGEST, 100) == DATA


def test_a_held_blob_needs_no_writer(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    bring(store)
    with store.span() as span, span.ingest(DIGEST, len(DATA), no_waiting) as writer:
        assert writer is None


def test_a_blob_of_the_wrong_size_counts_as_missing_and_is_replaced(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    store.path(DIGEST).write_bytes(DATA[:4])
    assert not store.has(DIGEST, len(DATA))
    bring(store)
    assert store.read(DIGEST, 100) == DATA


def test_what_a_dead_process_left_is_taken_over(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    (tmp_path / "ingest" / f"sha256-{DIGEST.hex}").write_bytes(b"half of something else")
    bring(store)
    assert store.read(DIGEST, 100) == DATA
    assert partials(store) == []


def test_who_comes_second_waits_and_then_finds_the_blob_held(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    first_in, waited = threading.Event(), threading.Event()
    outcome: list[bool] = []

    def second() -> None:
        first_in.wait(5)
        with store.span() as span, span.ingest(DIGEST, len(DATA), waited.set) as writer:
            outcome.append(writer is None)

    thread = threading.Thread(target=second)
    thread.start()
    with store.span() as span, span.ingest(DIGEST, len(DATA), no_waiting) as writer:
        assert writer is not None
        writer.write(DATA)
        first_in.set()
        assert waited.wait(5)
        writer.publish()
    thread.join(5)
    assert outcome == [True]
    assert partials(store) == []


def test_who_waits_may_give_up(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    with store.span() as span, span.ingest(DIGEST, len(DATA), no_waiting):
        with pytest.raises(GaveUp), span.ingest(DIGEST, len(DATA), no_waiting):
            pass
        assert partials(store) == [f"sha256-{DIGEST.hex}"]


def test_reading_checks_the_bytes_and_the_limit(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    with pytest.raises(BlobMissing):
        store.read(DIGEST, 100)
    bring(store)
    with pytest.raises(OverLimit):
        store.read(DIGEST, 5)
    store.path(DIGEST).write_bytes(b"A" + DATA[1:])
    assert not store.intact(DIGEST)
    with pytest.raises(WrongBytes):
        store.read(DIGEST, 100)


def test_nothing_is_collected_between_coming_and_being_referenced(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    with store.span() as span:
        span.put(DIGEST, DATA, no_waiting)
        with pytest.raises(Busy):
            ContentStore(tmp_path).collect(frozenset)
    assert store.collect(lambda: {DIGEST}) == []
    assert store.collect(frozenset) == [DIGEST]
    assert list(store.walk()) == []


def test_what_to_keep_is_asked_while_nothing_can_come_in(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    bring(store)
    seen: list[bool] = []

    def keep() -> set[Digest]:
        thread = threading.Thread(target=lambda: bring_later(store, seen.append))
        thread.start()
        thread.join(0.05)
        assert seen == []
        return {DIGEST}

    store.collect(keep)


def bring_later(store: ContentStore, done: Callable[[bool], None]) -> None:
    with store.span():
        done(True)


def test_collection_sweeps_partials_that_nobody_writes(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    (tmp_path / "ingest" / f"sha256-{DIGEST.hex}").write_bytes(b"left over")
    store.collect(frozenset)
    assert partials(store) == []


def test_a_sync_takes_the_marks_of_fresh_blobs_away(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    with store.span() as span:
        span.put(DIGEST, DATA, no_waiting)
        assert len(os.listdir(tmp_path / "ingest")) == 1
        span.sync()
    assert os.listdir(tmp_path / "ingest") == []


def mark_of(boot: str) -> str:
    return f"sha256-{DIGEST.hex}.fresh-{boot}-00"


def test_a_blob_that_a_power_cut_spoilt_is_dropped(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    bring(store)
    store.path(DIGEST).write_bytes(b"\0" * len(DATA))
    (tmp_path / "ingest" / mark_of("another")).touch()
    assert not ContentStore(tmp_path).has(DIGEST, len(DATA))
    assert os.listdir(tmp_path / "ingest") == []


def test_a_blob_that_a_power_cut_left_whole_is_kept(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    bring(store)
    (tmp_path / "ingest" / mark_of("another")).touch()
    assert ContentStore(tmp_path).has(DIGEST, len(DATA))


def test_a_blob_of_this_boot_is_trusted_after_a_kill(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    bring(store)
    mark = tmp_path / "ingest" / mark_of(hash8(proc.boot_id()))
    mark.touch()
    assert ContentStore(tmp_path).has(DIGEST, len(DATA))
    assert mark.exists()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a tmpfs")
    mount("tmpfs", str(tmp_path), "tmpfs", 0, "size=64k")
    yield tmp_path
    umount(str(tmp_path))


def test_a_full_disk_is_told_and_leaves_no_partial(tiny_disk: Path) -> None:
    data = b"x" * 100_000
    store = ContentStore(tiny_disk)
    with store.span() as span:
        with pytest.raises(NoSpace):
            span.put(Digest.of(data), data, no_waiting)
        assert partials(store) == []
        span.put(DIGEST, DATA, no_waiting)
