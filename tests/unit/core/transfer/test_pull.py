"""Pulling one image, from memory: order, faults, and what is left after them."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from core.clock import VirtualClock
from core.content.ingest import WrongBytes
from core.content.store import ContentStore
from core.digest import Digest
from core.errors import Corrupt, Failed, NoSpace, NotFound, OverLimit, Unavailable
from core.layers import Budgets, Compression
from core.transfer import manifests, platform
from core.transfer.ports import Descriptor, LayerState, PulledImage, Unpacker
from core.transfer.pull import Cancelled, Held, NoProgress, pull
from tests.fakes.images import LAYER, Image, MemoryRemote, described, index_of

AMD64 = platform.parse("linux/amd64")
IMAGE = Image([b"layer one" * 5, b"layer two" * 5, b"layer three" * 5])


@dataclass(slots=True)
class Sink:
    """An unpacker that remembers; layers in `have` are committed already."""

    have: frozenset[int] = frozenset()
    fault: Exception | None = None
    got: dict[int, bytes] = field(default_factory=dict)
    total: int = 0
    aborted: bool = False

    def begin(self, diff_ids: Sequence[Digest], sizes: Sequence[int], budgets: Budgets) -> "Sink":
        self.total = len(diff_ids)
        return self

    def missing(self) -> Sequence[int]:
        return [number for number in range(self.total) if number not in self.have]

    def ready(self, index: int, blob: Path, compression: Compression) -> None:
        assert compression is Compression.GZIP
        self.got[index] = blob.read_bytes()

    def applied(self) -> int:
        return 0

    def finish(self) -> str:
        if self.fault is not None:
            raise self.fault
        return "sha256:top"

    def abort(self) -> None:
        self.aborted = True


@dataclass(slots=True)
class Told(NoProgress):
    """Remembers what it was told of layers."""

    states: list[tuple[Digest, LayerState]] = field(default_factory=list)

    def layer(self, digest: Digest, state: LayerState) -> None:
        self.states.append((digest, state))


def remote_of(image: Image, **more: Callable[[Digest], None]) -> MemoryRemote:
    return MemoryRemote(image.target(), image.blobs(), **more)


def run(
    folder: Path,
    remote: MemoryRemote | Held,
    unpacker: Unpacker | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    wanted: platform.Platform = AMD64,
) -> PulledImage:
    with ContentStore(folder).span() as span:
        return pull(remote, wanted, span=span, clock=VirtualClock(), unpacker=unpacker, cancelled=cancelled)


def held(folder: Path) -> set[Digest]:
    return set(ContentStore(folder).walk())


def test_a_pulled_image_is_complete_and_durable(tmp_path: Path) -> None:
    sink = Sink()
    pulled = run(tmp_path, remote_of(IMAGE), sink)
    assert held(tmp_path) == set(pulled.blobs) == set(IMAGE.blobs())
    assert sink.got == dict(enumerate(IMAGE.layers))
    assert not sink.aborted
    assert pulled.chain == "sha256:top"
    assert pulled.platform == "linux/amd64"
    assert pulled.bytes_fetched == sum(map(len, IMAGE.blobs().values()))
    assert os.listdir(tmp_path / "ingest") == []


def test_what_is_held_is_not_fetched_again(tmp_path: Path) -> None:
    run(tmp_path, remote_of(IMAGE))
    again = remote_of(IMAGE)
    assert run(tmp_path, again).bytes_fetched == 0
    assert again.asked == []
    grown = remote_of(Image([*IMAGE.layers, b"one more"]))
    run(tmp_path, grown)
    assert Digest.of(IMAGE.layers[0]) not in grown.asked


def test_an_image_is_rebuilt_from_content_alone(tmp_path: Path) -> None:
    first = run(tmp_path, remote_of(IMAGE))
    sink = Sink()
    again = run(tmp_path, Held(first.target, "app:1", "example.org"), sink)
    assert (again.config, again.layers, again.blobs) == (first.config, first.layers, first.blobs)
    assert sink.got == dict(enumerate(IMAGE.layers))


def test_an_image_that_is_not_whole_is_not_rebuilt(tmp_path: Path) -> None:
    first = run(tmp_path, remote_of(IMAGE))
    ContentStore(tmp_path).discard(first.layers[1].digest)
    with pytest.raises(NotFound, match="not held"):
        run(tmp_path, Held(first.target, "app:1", "example.org"))


def test_a_layer_whose_snapshot_is_there_is_fetched_but_not_handed_on(tmp_path: Path) -> None:
    sink = Sink(have=frozenset({0, 2}))
    run(tmp_path, remote_of(IMAGE), sink)
    assert list(sink.got) == [1]
    assert held(tmp_path) == set(IMAGE.blobs())


def test_a_layer_that_is_listed_twice_is_fetched_once_and_applied_twice(tmp_path: Path) -> None:
    image, sink = Image([b"same", b"other", b"same"]), Sink()
    remote = remote_of(image)
    run(tmp_path, remote, sink)
    assert remote.asked.count(Digest.of(b"same")) == 1
    assert sink.got == {0: b"same", 1: b"other", 2: b"same"}


def test_a_flipped_byte_is_never_published_and_nothing_half_made_stays(tmp_path: Path) -> None:
    remote, sink = remote_of(IMAGE), Sink()
    remote.blobs[Digest.of(IMAGE.layers[1])] = b"L" + IMAGE.layers[1][1:]
    with pytest.raises(WrongBytes):
        run(tmp_path, remote, sink)
    assert sink.aborted
    assert Digest.of(IMAGE.layers[1]) not in held(tmp_path)
    assert not ContentStore(tmp_path).begun(Digest.of(IMAGE.layers[1]))
    assert remote.asked.count(Digest.of(IMAGE.layers[1])) == 1


@pytest.mark.parametrize("change", [b"", b"{}", b"x"])
def test_a_manifest_that_is_not_its_digest_is_never_published(tmp_path: Path, change: bytes) -> None:
    remote = remote_of(IMAGE)
    remote.blobs[IMAGE.target().digest] = change
    with pytest.raises(WrongBytes):
        run(tmp_path, remote)
    assert held(tmp_path) == set()


def test_the_first_fault_is_raised_and_stops_the_others(tmp_path: Path) -> None:
    blocked = threading.Event()

    def before(digest: Digest) -> None:
        if digest == Digest.of(IMAGE.layers[0]):
            blocked.wait(5)
        if digest == Digest.of(IMAGE.layers[1]):
            blocked.set()
            raise Failed("this one first")

    with pytest.raises((Failed, Cancelled)) as caught:
        run(tmp_path, remote_of(IMAGE, before_blob=before), sink := Sink())
    assert caught.value.message == "this one first"
    assert sink.aborted


def test_a_connection_is_tried_three_times(tmp_path: Path) -> None:
    tries: list[Digest] = []

    def before(digest: Digest) -> None:
        tries.append(digest)
        if tries.count(digest) < 3:
            raise Unavailable("reset")

    assert run(tmp_path, remote_of(Image([b"one"]), before_blob=before)).layers
    assert tries.count(Digest.of(b"one")) == 3


def test_a_full_disk_is_not_tried_again(tmp_path: Path) -> None:
    def before(digest: Digest) -> None:
        raise NoSpace("full")

    remote = remote_of(IMAGE, before_blob=before)
    with pytest.raises(NoSpace):
        run(tmp_path, remote)
    assert remote.asked == [IMAGE.target().digest]


def test_layers_larger_than_the_disk_are_refused_before_they_are_fetched(tmp_path: Path) -> None:
    manifest = IMAGE.manifest.replace(b'"size": 45', b'"size": 4500000000000000')
    target = Descriptor(manifests.OCI_MANIFEST, Digest.of(manifest), len(manifest))
    remote = MemoryRemote(target, IMAGE.blobs() | {target.digest: manifest})
    with pytest.raises(NoSpace, match="are free"):
        run(tmp_path, remote)
    assert Digest.of(IMAGE.layers[0]) not in remote.asked


def test_a_pull_that_would_leave_too_little_of_the_disk_free_is_refused_before_the_first_byte(tmp_path: Path) -> None:
    remote = remote_of(IMAGE)
    with ContentStore(tmp_path).span() as span, pytest.raises(NoSpace, match="100 % of the disk") as caught:
        pull(remote, AMD64, span=span, clock=VirtualClock(), keep_free=100)
    assert "Free space" in caught.value.hint()
    assert not {Digest.of(layer) for layer in IMAGE.layers} & set(remote.asked)


def test_what_is_held_needs_no_room(tmp_path: Path) -> None:
    run(tmp_path, remote_of(IMAGE))
    with ContentStore(tmp_path).span() as span:
        assert pull(remote_of(IMAGE), AMD64, span=span, clock=VirtualClock(), keep_free=100).layers


def test_a_pull_can_be_stopped(tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        run(tmp_path, remote_of(IMAGE), cancelled=lambda: True)


def test_a_layer_that_rotted_on_disk_is_fetched_anew_the_next_time(tmp_path: Path) -> None:
    run(tmp_path, remote_of(IMAGE))
    rotten = Digest.of(IMAGE.layers[2])
    ContentStore(tmp_path).path(rotten).write_bytes(b"\0" * len(IMAGE.layers[2]))
    with pytest.raises(Corrupt):
        run(tmp_path, remote_of(IMAGE), Sink(fault=Corrupt("layer 2 has another diff id")))
    again = remote_of(IMAGE)
    run(tmp_path, again, Sink())
    assert again.asked == [rotten]


def test_the_entry_of_the_wanted_platform_is_pulled(tmp_path: Path) -> None:
    other = Image([b"arm"], architecture="arm64")
    entries = [
        described(image.manifest, manifests.OCI_MANIFEST, platform={"os": "linux", "architecture": image.architecture})
        for image in (IMAGE, other)
    ]
    index = index_of(*entries)
    target = Descriptor(manifests.OCI_INDEX, Digest.of(index), len(index))
    blobs = IMAGE.blobs() | other.blobs() | {target.digest: index}
    pulled = run(tmp_path, MemoryRemote(target, blobs), wanted=platform.parse("linux/arm64/v8"))
    assert pulled.platform == "linux/arm64"
    assert held(tmp_path) == {target.digest, *other.blobs()}
    with pytest.raises(NotFound, match="there is linux/amd64, linux/arm64"):
        run(tmp_path, MemoryRemote(target, blobs), wanted=platform.parse("linux/s390x"))


def test_an_image_of_another_platform_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is linux/arm64"):
        run(tmp_path, remote_of(Image([b"arm"], architecture="arm64")))


def nested(depth: int) -> MemoryRemote:
    """An image under `depth` indexes."""
    blobs, data, media_type = IMAGE.blobs(), IMAGE.manifest, manifests.OCI_MANIFEST
    for _ in range(depth):
        data, media_type = index_of(described(data, media_type)), manifests.OCI_INDEX
        blobs[Digest.of(data)] = data
    return MemoryRemote(Descriptor(media_type, Digest.of(data), len(data)), blobs)


def test_indexes_nested_too_deep_are_refused(tmp_path: Path) -> None:
    assert len(run(tmp_path, nested(8)).blobs) == 8 + 5
    with pytest.raises(OverLimit):
        run(tmp_path, nested(50))


def test_two_pulls_at_once_fetch_every_blob_once(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=5)
    shared = remote_of(IMAGE)

    @contextmanager
    def pulling() -> Iterator[list[PulledImage]]:
        results: list[PulledImage] = []

        def work() -> None:
            both.wait()
            results.append(run(tmp_path, shared))

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        yield results

    with pulling() as results:
        assert len(results) == 2
    layers = {Digest.of(layer) for layer in IMAGE.layers}
    assert sorted(digest for digest in shared.asked if digest in layers) == sorted(layers)
    assert sum(result.bytes_fetched for result in results) >= sum(map(len, IMAGE.layers))


def test_progress_tells_of_each_layer(tmp_path: Path) -> None:
    told = Told()
    with ContentStore(tmp_path).span() as span:
        pull(remote_of(IMAGE), AMD64, span=span, clock=VirtualClock(), unpacker=Sink(), progress=told)
    digest = Digest.of(IMAGE.layers[0])
    assert [s for d, s in told.states if d == digest] == [LayerState.FETCHING, LayerState.HELD, LayerState.APPLIED]
    assert LAYER.endswith("gzip")
