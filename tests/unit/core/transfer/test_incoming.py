"""One blob on its way in: what is asked for again, and what stays."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from core.clock import VirtualClock
from core.content.ingest import WrongBytes
from core.content.store import ContentStore
from core.digest import Digest
from core.errors import Failed, Unavailable
from core.transfer.incoming import Cancelled, Incoming
from core.transfer.ports import CannotResume, Descriptor
from core.transfer.pull import NoProgress

DATA = bytes(range(256)) * 8192  # 2 MiB
BLOB = Descriptor("x", Digest.of(DATA), len(DATA))
PIECE = 64 << 10


@dataclass(slots=True)
class Flaky:
    """Gives `cut` bytes a connection, then breaks off; `ranges` says whether it can begin anywhere but at 0."""

    cut: int
    ranges: bool = True
    data: bytes = DATA
    image: str = "example.org/app:1"
    origin: str = "example.org"
    starts: list[int] = field(default_factory=list)

    def resolve(self) -> Descriptor:
        return BLOB

    def document(self, descriptor: Descriptor) -> bytes:
        return b""

    def blob(self, descriptor: Descriptor, start: int = 0) -> Iterator[bytes]:
        if start and not self.ranges:
            raise CannotResume("200 instead of 206")
        self.starts.append(start)
        end = min(start + self.cut, len(self.data))
        for at in range(start, end, PIECE):
            yield self.data[at : min(at + PIECE, end)]
        if end < len(self.data):
            raise Unavailable("reset")


def bring(folder: Path, remote: Flaky, stop: Callable[[], None] = lambda: None) -> int:
    with ContentStore(folder).span() as span, span.ingest(BLOB.digest, BLOB.size, lambda: None) as writer:
        assert writer is not None
        return Incoming(remote, BLOB, writer, VirtualClock(), stop, NoProgress()).bring()


def partial(folder: Path) -> Path:
    return folder / "ingest" / f"sha256-{BLOB.digest.hex}"


def lay(folder: Path, data: bytes) -> None:
    ContentStore(folder)
    partial(folder).write_bytes(data)


def test_a_link_that_breaks_off_often_brings_every_byte_once(tmp_path: Path) -> None:
    remote = Flaky(300 << 10)
    assert bring(tmp_path, remote) == BLOB.size
    assert remote.starts == list(range(0, BLOB.size, 300 << 10))
    assert ContentStore(tmp_path).intact(BLOB.digest)


def test_what_a_killed_process_left_is_gone_on_with(tmp_path: Path) -> None:
    lay(tmp_path, DATA[:700_000])
    remote = Flaky(BLOB.size)
    assert bring(tmp_path, remote) == BLOB.size - 700_000
    assert remote.starts == [700_000]
    assert ContentStore(tmp_path).intact(BLOB.digest)


def test_a_blob_that_was_here_whole_is_published_without_asking(tmp_path: Path) -> None:
    lay(tmp_path, DATA)
    remote = Flaky(BLOB.size)
    assert bring(tmp_path, remote) == 0
    assert remote.starts == []
    assert ContentStore(tmp_path).intact(BLOB.digest)


@pytest.mark.parametrize("left", [b"\0" * 700_000, b"\0" * BLOB.size, b"x" * (BLOB.size + 1)])
def test_what_was_left_and_is_wrong_is_fetched_anew_once(tmp_path: Path, left: bytes) -> None:
    lay(tmp_path, left)
    remote = Flaky(BLOB.size)
    assert bring(tmp_path, remote) <= 2 * BLOB.size
    assert remote.starts[-1] == 0
    assert ContentStore(tmp_path).intact(BLOB.digest)


def test_a_registry_that_lies_is_asked_once_when_it_answers_whole(tmp_path: Path) -> None:
    remote = Flaky(BLOB.size, data=b"y" + DATA[1:])
    with pytest.raises(WrongBytes):
        bring(tmp_path, remote)
    assert remote.starts == [0]
    assert not partial(tmp_path).exists()


def test_a_registry_that_lies_in_pieces_is_asked_for_it_once_more(tmp_path: Path) -> None:
    remote = Flaky(1 << 20, data=b"y" + DATA[1:])
    with pytest.raises(WrongBytes):
        bring(tmp_path, remote)
    assert remote.starts == [0, 1 << 20, 0, 1 << 20]
    assert not partial(tmp_path).exists()
    assert not ContentStore(tmp_path).has(BLOB.digest, BLOB.size)


def test_without_ranges_no_more_than_twice_the_size_is_fetched(tmp_path: Path) -> None:
    remote = Flaky(BLOB.size - PIECE, ranges=False)
    with pytest.raises(Failed, match="cannot go on"):
        bring(tmp_path, remote)
    assert remote.starts == [0, 0]


def test_what_came_before_the_link_went_dead_stays_for_the_next_pull(tmp_path: Path) -> None:
    remote = Flaky(PIECE)
    with pytest.raises(Unavailable):
        bring(tmp_path, remote)
    here = len(remote.starts) * PIECE
    assert partial(tmp_path).stat().st_size == here
    assert bring(tmp_path, Flaky(BLOB.size)) == BLOB.size - here


def test_a_pull_that_is_stopped_leaves_what_came(tmp_path: Path) -> None:
    asked: list[int] = []

    def stop() -> None:
        asked.append(1)
        if len(asked) > 5:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        bring(tmp_path, Flaky(BLOB.size), stop)
    assert partial(tmp_path).stat().st_size == 4 * PIECE


def test_an_origin_that_ends_early_without_a_word_is_unavailable(tmp_path: Path) -> None:
    class Short(Flaky):
        def blob(self, descriptor: Descriptor, start: int = 0) -> Iterator[bytes]:
            self.starts.append(start)
            yield from (DATA[start:1000],) if start < 1000 else ()

    with pytest.raises(Unavailable, match="after 1000 of"):
        bring(tmp_path, short := Short(0))
    assert short.starts == [0, 1000, 1000]
