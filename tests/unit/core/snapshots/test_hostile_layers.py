"""Layers that mean harm, one test each: a canary beside the snapshots must look the same after every one of them."""

import gzip
import io
import os
import stat
import struct
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import mounts
from core.clock import SystemClock
from core.digest import Digest
from core.errors import AgentError, Corrupt, Invalid, NoSpace, OverLimit, TimedOut
from core.layers import Budgets, Compression
from core.mounts import MountSpec
from core.process import Launcher
from core.snapshots.driver import FolderSnapshotter
from core.snapshots.overlay import OverlaySnapshotter
from core.snapshots.unpack import LayerUnpacker
from tests.conformance.snapshotter_ground import (
    BLK,
    CHR,
    DIR,
    DRIVERS,
    LNK,
    REG,
    SYM,
    Entry,
    folder,
    layer,
    mounted,
    need_root,
    tree,
    unpack,
)

PLANT = 2**62


class Ground:
    """A driver, and a canary outside of it."""

    def __init__(self, place: Path, driver: FolderSnapshotter) -> None:
        self.driver = driver
        self.outside = place / "outside"
        self.outside.mkdir()
        self.secret = self.outside / "secret"
        self.secret.write_text("secret")
        self.secret.chmod(0o600)
        self.before = tree(self.outside)

    def show(self, *layers: bytes) -> dict[str, tuple[object, ...]]:
        """The files that come of the layers."""
        top = unpack(self.driver, layers)
        with mounted(self.driver, "look", top) as root:
            return dict(tree(root))

    def refuse(self, *layers: bytes, error: type[AgentError] = Invalid) -> AgentError:
        """The error that the layers get; nothing of them is left but what was there before."""
        with pytest.raises(error) as caught:
            unpack(self.driver, layers)
        assert list(self.driver.walk()) == []
        assert [entry.name for entry in self.driver.root.iterdir() if entry.is_dir()] == ["locks"]
        return caught.value


@pytest.fixture(params=sorted(DRIVERS))
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    driver = DRIVERS[request.param](tmp_path / "snapshots")
    made = Ground(tmp_path, driver)
    yield made
    driver.close()
    assert tree(made.outside) == made.before
    assert made.secret.stat().st_nlink == 1


def test_names_that_climb_or_are_absolute_stay_inside(ground: Ground) -> None:
    seen = ground.show(layer(Entry("../../../x", data=b"1"), Entry("/abs/y", data=b"2"), Entry("a/../../b", data=b"3")))
    assert {"x", "abs/y", "b"} <= set(seen)


@pytest.mark.parametrize("target", ["{outside}", "../../..", "/proc/self/root{outside}", "../../../../../..{outside}"])
@pytest.mark.parametrize("together", [True, False])
def test_a_link_to_the_outside_leads_inside(ground: Ground, target: str, together: bool) -> None:
    link = Entry("d", SYM, link=target.format(outside=ground.outside))
    through = Entry("d/secret", data=b"planted", mode=0o4777)
    layers = [layer(link, through)] if together else [layer(link), layer(through)]
    assert any(name.endswith("secret") for name in ground.show(*layers))


@pytest.mark.parametrize("target", ["{outside}/secret", "../../../outside/secret", "sym/secret"])
def test_a_hard_link_to_the_outside_is_refused(ground: Ground, target: str) -> None:
    link = Entry("h", LNK, link=target.format(outside=ground.outside))
    ground.refuse(layer(Entry("sym", SYM, link=str(ground.outside)), link))


def test_a_hard_link_to_a_link_is_never_acted_through(ground: Ground) -> None:
    target = str(ground.secret)
    seen = ground.show(
        layer(Entry("s", SYM, link=target), Entry("h", LNK, link="s"), Entry("h", data=b"new", mode=0o4777))
    )
    assert seen["h"][0] == oct(stat.S_IFREG | 0o4777)
    assert seen["s"][6] == target


def test_metadata_of_a_hard_link_does_not_reach_what_a_link_points_at(ground: Ground) -> None:
    ground.show(layer(Entry("s", SYM, link=str(ground.secret)), Entry("h", LNK, link="s", mode=0o4777, owner=(7, 7))))


@pytest.mark.parametrize("kind", [SYM, REG])
def test_a_root_that_is_no_folder_is_refused(ground: Ground, kind: bytes) -> None:
    ground.refuse(layer(Entry(".", kind, link=str(ground.outside)), Entry("./x")))


@pytest.mark.parametrize("name", ["a/.wh...", ".wh.", "a/.wh.", "a/.wh..", ".wh..."])
def test_a_whiteout_of_nothing_is_refused(ground: Ground, name: str) -> None:
    ground.refuse(layer(folder("a"), Entry(name)))


@pytest.mark.parametrize("name", ["d/.wh.secret", "d/.wh..wh..opq"])
def test_a_whiteout_through_a_link_hides_nothing_outside(ground: Ground, name: str) -> None:
    ground.show(layer(Entry("d", SYM, link=str(ground.outside))), layer(Entry(name)))


def test_files_below_a_whiteout_are_refused(ground: Ground) -> None:
    ground.refuse(layer(Entry(".wh.a/b")))


@pytest.mark.parametrize(
    "name", ["trusted.overlay.redirect", "trusted.overlay.opaque", "trusted.overlay.metacopy", "user.overlay.opaque"]
)
def test_attributes_that_speak_to_overlayfs_are_refused(ground: Ground, name: str) -> None:
    ground.refuse(layer(folder("a", pax={f"SCHILY.xattr.{name}": "y"})))


def test_a_character_device_0_0_is_a_whiteout(ground: Ground) -> None:
    seen = ground.show(layer(folder("a"), Entry("a/x"), Entry("a/y")), layer(folder("a"), Entry("a/x", CHR)))
    assert "a/x" not in seen
    assert "a/y" in seen


def test_a_device_node_is_made_and_cannot_be_used(ground: Ground) -> None:
    top = unpack(ground.driver, [layer(Entry("disk", BLK, mode=0o666, device=(8, 0)))])
    with mounted(ground.driver, "look", top) as root:
        assert stat.S_ISBLK((root / "disk").stat().st_mode)
        with pytest.raises(PermissionError):
            (root / "disk").read_bytes()


def test_a_setuid_file_keeps_its_mode_and_its_parents_are_closed(ground: Ground) -> None:
    seen = ground.show(layer(Entry("sudo", data=b"#", mode=0o4755, owner=(3, 4))))
    assert seen["sudo"][:3] == (oct(stat.S_IFREG | 0o4755), 3, 4)
    assert stat.S_IMODE(ground.driver.root.stat().st_mode) == 0o700


def test_a_malformed_capability_is_refused(ground: Ground) -> None:
    ground.refuse(layer(Entry("f", pax={"SCHILY.xattr.security.capability": "junk"})))


def test_of_two_entries_of_one_name_the_last_wins_and_acts_through_nothing(ground: Ground) -> None:
    seen = ground.show(layer(Entry("f", SYM, link=str(ground.secret)), Entry("f", data=b"file")))
    assert seen["f"][0] == oct(stat.S_IFREG | 0o644)


def test_a_file_below_a_file_is_refused(ground: Ground) -> None:
    ground.refuse(layer(Entry("f"), Entry("f/x")))


def test_a_file_below_a_file_of_a_parent_is_refused(ground: Ground) -> None:
    ground.refuse(layer(Entry("f")), layer(Entry("f/x")))


def test_a_loop_of_links_is_refused(ground: Ground) -> None:
    ground.refuse(layer(Entry("a", SYM, link="b"), Entry("b", SYM, link="a"), Entry("a/x")))


def test_paths_too_long_for_the_system_are_refused(ground: Ground) -> None:
    assert "too long" in str(ground.refuse(layer(Entry("/".join(["n" * 200] * 40)))))
    assert "too long" in str(ground.refuse(layer(Entry("n" * 70_000))))
    assert "too long" in str(ground.refuse(layer(Entry("n" * 300))))


def test_a_sparse_claim_is_refused_at_once_and_nothing_is_written(ground: Ground) -> None:
    pax = {
        "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "f", "GNU.sparse.size": str(PLANT),
        "GNU.sparse.numblocks": "1", "GNU.sparse.map": f"{PLANT - 1},1",
    }  # fmt: skip
    started = time.process_time()
    ground.refuse(layer(Entry("f", data=b"0\n", pax=pax)))
    assert time.process_time() - started < 1


def test_a_size_over_the_budget_is_refused_before_anything_is_written(ground: Ground) -> None:
    huge = bytearray(layer(Entry("f"))[:512])
    huge[124:136] = b"\x80" + struct.pack(">xxxQ", PLANT)
    ground.refuse(sealed(bytes(huge)) + bytes(512), error=OverLimit)


def test_a_negative_size_is_refused(ground: Ground) -> None:
    header = bytearray(layer(Entry("f"))[:512])
    header[124:136] = b"\xff" * 12
    ground.refuse(sealed(bytes(header)) + bytes(1024))


def test_an_extension_header_that_claims_gigabytes_is_refused_unread(ground: Ground) -> None:
    for kind in (b"x", b"g", b"L", b"K"):
        info = tarfile.TarInfo("PaxHeader")
        info.type, info.size = kind, 4 << 30
        ground.refuse(info.tobuf(tarfile.GNU_FORMAT), error=OverLimit)


def test_a_tar_cut_short_is_refused(ground: Ground) -> None:
    whole = layer(Entry("f", data=b"x" * 2000))
    for length in (1400, 700, 300):
        ground.refuse(whole[:length])


def test_what_follows_the_end_is_accepted_and_hashed(ground: Ground) -> None:
    data = layer(Entry("f")) + b"junk" * 100_000
    assert unpack(ground.driver, [data]) == str(Digest.of(data))


def test_a_layer_that_is_not_what_its_digest_says_is_refused(ground: Ground) -> None:
    with pytest.raises(Corrupt):
        unpack(ground.driver, [layer(Entry("f"))], raw=[layer(Entry("g"))])


def test_bytes_that_do_not_fit_the_media_type_are_refused(ground: Ground) -> None:
    data = layer(Entry("f"))
    cases = [
        (gzip.compress(data), Compression.NONE),
        (data, Compression.GZIP),
        (gzip.compress(gzip.compress(data)), Compression.GZIP),
        (gzip.compress(data), Compression.ZSTD),
        (gzip.compress(data)[:-9], Compression.GZIP),
    ]
    for blob, compression in cases:
        with pytest.raises((Invalid, Corrupt)):
            unpack(ground.driver, [data], raw=[blob], compression=compression)


def test_a_layer_of_many_gzip_members_is_read_whole(ground: Ground) -> None:
    data = layer(Entry("f", data=os.urandom(100_000)))
    blob = b"".join(gzip.compress(data[at : at + 100], 1) for at in range(0, len(data), 100))
    assert unpack(ground.driver, [data], raw=[blob], compression=Compression.GZIP)


def test_a_zstd_window_of_two_gigabytes_is_refused(ground: Ground) -> None:
    # Magic, a frame header with a window descriptor of exponent 21 (2 GiB), an empty last raw block (RFC 8878, 3.1.1).
    frame = b"\x28\xb5\x2f\xfd" + bytes([0b00000000, 21 << 3]) + b"\x01\x00\x00"
    with pytest.raises(Corrupt):
        unpack(ground.driver, [b""], raw=[frame], compression=Compression.ZSTD)


def test_budgets_of_bytes_and_inodes_and_seconds_are_kept(ground: Ground) -> None:
    data = layer(*(Entry(f"f{number}", data=b"x" * 1000) for number in range(50)))
    for budgets, error in (
        (Budgets(layer_bytes=49_999), OverLimit),
        (Budgets(inodes=49), OverLimit),
        (Budgets(seconds=-1.0), TimedOut),
    ):
        with pytest.raises(error):
            unpack(ground.driver, [data], budgets=budgets)
    assert unpack(ground.driver, [data], budgets=Budgets(layer_bytes=50_000, inodes=50))


def test_folders_made_on_the_way_count_as_inodes(ground: Ground) -> None:
    with pytest.raises(OverLimit):
        unpack(ground.driver, [layer(Entry("/".join("abcdefgh")))], budgets=Budgets(inodes=5))


def test_a_layer_that_swells_a_thousandfold_is_refused(tmp_path: Path) -> None:
    from core.stream import LayerStream

    class Zeros(io.RawIOBase):
        """A megabyte that claims to have been a kilobyte."""

        read_in = 0

        def readinto(self, view: memoryview) -> int:  # type: ignore[override] # the buffer is a view here
            self.read_in += 1024
            return len(view)

        def tell(self) -> int:
            return self.read_in

    stream = LayerStream(Zeros(), Compression.NONE, "sha256", lambda: None)
    view = memoryview(bytearray(2 << 20))
    with pytest.raises(OverLimit):
        list(iter(lambda: stream.fill(view), 0))
    assert stream.total <= (1 << 30) + (2 << 20)


def test_diff_ids_and_layers_must_be_of_one_number(tmp_path: Path) -> None:
    driver = OverlaySnapshotter(tmp_path / "snapshots", SystemClock())
    unpacker = LayerUnpacker(driver, Launcher())
    some = Digest.of(b"")
    for diff_ids, sizes in (([some], [1, 2]), ([some, some], [1]), ([], []), ([some] * 513, [1] * 513)):
        with pytest.raises(Invalid):
            unpacker.begin(diff_ids, sizes, Budgets())
    driver.close()


@pytest.mark.parametrize("size", ["size=300k", "nr_inodes=60"])
def test_a_full_disk_is_told_as_such_and_what_was_written_is_removed(tmp_path: Path, size: str) -> None:
    need_root()
    mounts.attach([MountSpec("tmpfs", "tmpfs", (size, "mode=0700"))], tmp_path)
    try:
        driver = OverlaySnapshotter(tmp_path / "snapshots", SystemClock())
        data = layer(*(Entry(f"f{number}", data=b"x" * 9000) for number in range(60)))
        (tmp_path / "blob").write_bytes(gzip.compress(data))
        sink = LayerUnpacker(driver, Launcher()).begin([Digest.of(data)], [len(data)], Budgets())
        sink.ready(0, tmp_path / "blob", Compression.GZIP)
        with pytest.raises(NoSpace):
            sink.finish()
        assert not [entry for entry in driver.root.iterdir() if entry.name.startswith(".staging")]
        driver.close()
    finally:
        mounts.detach(tmp_path)


def test_a_folder_nested_deeper_than_any_path_can_be_removed_again(ground: Ground) -> None:
    deep = "/".join(["d"] * 600)
    further = [folder("s" + f"/{'n' * 40}" * number) for number in range(1, 96)]
    layers = [layer(folder(deep), Entry("s", SYM, link=deep)), layer(*further)]
    unpack(ground.driver, layers)
    for info in reversed(list(ground.driver.walk())):
        ground.driver.remove(info.key)
    assert not [entry for entry in ground.driver.root.iterdir() if entry.name.isdigit()]


def sealed(header: bytes) -> bytes:
    """The header with its checksum put right."""
    blank = header[:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(blank) + header[156:]


def test_a_folder_stays_a_folder_when_it_is_named_again(ground: Ground) -> None:
    seen = ground.show(layer(folder("d"), Entry("d/x"), folder("d", 0o700), Entry("e", DIR)))
    assert {"d/x", "e"} <= set(seen)
    assert seen["d"][0] == oct(stat.S_IFDIR | 0o700)
