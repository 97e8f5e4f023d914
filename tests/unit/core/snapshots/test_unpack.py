"""Images become snapshots: side by side, once, completely or not at all."""

import gzip
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from core.digest import Digest, chain_id
from core.errors import Failed
from core.layers import Budgets, Compression
from core.process import Launcher
from core.snapshots.driver import FolderSnapshotter
from core.snapshots.unpack import ImageUnpack, LayerUnpacker
from tests.conformance.snapshotter_ground import (
    DRIVERS,
    LNK,
    SYM,
    Entry,
    folder,
    layer,
    mounted,
    tree,
    unpack,
)

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000").decode("latin-1")
BASE = layer(
    folder("./", 0o751, owner=(5, 6), mtime=1000),
    folder("a", mtime=2000),
    Entry("a/x", data=b"one"),
    Entry("a/y", data=b"two"),
    folder("b", 0o2775, owner=(0, 7)),
    Entry("b/z", data=b"zed"),
    Entry("l", SYM, link="b"),
    folder("gone"),
    Entry("gone/file"),
    Entry("was-a-folder/inside"),
)


@pytest.fixture(params=sorted(DRIVERS))
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FolderSnapshotter]:
    made: FolderSnapshotter = DRIVERS[request.param](tmp_path / "snapshots")
    yield made
    made.close()


def files(driver: FolderSnapshotter, *layers: bytes) -> dict[str, tuple[Any, ...]]:
    with mounted(driver, "look", unpack(driver, layers)) as root:
        return tree(root)


def test_a_folder_that_only_a_parent_has_keeps_its_looks(driver: FolderSnapshotter) -> None:
    before = files(driver, BASE)
    seen = files(driver, BASE, layer(Entry("a/new", data=b"n")))
    assert seen["a"] == before["a"]
    assert seen["."] == before["."]
    assert seen["a/new"][0] == "0o100644"


def test_a_name_through_a_link_of_a_parent_lands_where_it_leads(driver: FolderSnapshotter) -> None:
    seen = files(driver, BASE, layer(Entry("l/via", data=b"v")))
    assert "b/via" in seen
    assert seen["b/via"][1:3] == (0, 0)
    assert seen["b"][0] == "0o42775"
    assert seen["l"][6] == "b"


def test_a_hard_link_may_lead_to_a_file_of_a_parent(driver: FolderSnapshotter) -> None:
    seen = files(driver, BASE, layer(Entry("h", LNK, link="b/z")))
    assert seen["h"][5] == seen["b/z"][5] == "b/z"


def test_hard_links_inside_a_layer_stay_one_file(driver: FolderSnapshotter) -> None:
    seen = files(driver, layer(Entry("f", data=b"x"), Entry("g", LNK, link="f"), Entry("h", LNK, link="./g")))
    assert {seen[name][5] for name in "fgh"} == {"f"}


def test_whiteouts_hide_files_and_folders_of_parents(driver: FolderSnapshotter) -> None:
    seen = files(driver, BASE, layer(folder("a"), Entry("a/.wh.x"), Entry(".wh.gone")))
    assert "a/y" in seen
    assert not {"a/x", "gone", "gone/file"} & set(seen)


@pytest.mark.parametrize("last", [True, False])
def test_an_opaque_folder_hides_what_parents_have_and_not_its_own(driver: FolderSnapshotter, last: bool) -> None:
    mark, own = Entry("a/.wh..wh..opq"), [Entry("a/only"), folder("a/sub"), Entry("a/sub/own")]
    seen = files(driver, BASE, layer(folder("a"), *([*own, mark] if last else [mark, *own])))
    assert sorted(name for name in seen if name.startswith("a")) == ["a", "a/only", "a/sub", "a/sub/own"]


def test_an_opaque_root_hides_everything_beneath(driver: FolderSnapshotter) -> None:
    seen = files(driver, BASE, layer(Entry("mine"), Entry(".wh..wh..opq")))
    assert sorted(seen) == [".", "mine"]


@pytest.mark.parametrize("last", [True, False])
def test_a_whiteout_beside_a_new_folder_hides_only_the_old_one(driver: FolderSnapshotter, last: bool) -> None:
    new = [folder("gone"), Entry("gone/new")]
    seen = files(driver, BASE, layer(*([*new, Entry(".wh.gone")] if last else [Entry(".wh.gone"), *new])))
    assert sorted(name for name in seen if name.startswith("gone")) == ["gone", "gone/new"]


def test_a_file_takes_the_place_of_a_folder_and_the_other_way(driver: FolderSnapshotter) -> None:
    seen = files(
        driver, BASE, layer(Entry("was-a-folder", data=b"x"), folder("b"), folder("a"), folder("a/x"), Entry("a/x/in"))
    )
    assert seen["was-a-folder"][0] == "0o100644"
    assert "was-a-folder/inside" not in seen
    assert {"b/z", "a/x/in"} <= set(seen)


def test_a_folder_that_replaces_a_file_that_replaced_a_folder_is_empty(driver: FolderSnapshotter) -> None:
    seen = files(driver, BASE, layer(Entry("gone"), folder("gone")))
    assert [name for name in seen if name.startswith("gone")] == ["gone"]


def test_a_whiteout_in_the_first_layer_leaves_nothing_behind(driver: FolderSnapshotter) -> None:
    assert sorted(files(driver, layer(folder("a"), Entry("a/.wh.x"), Entry("a/.wh..wh..opq")))) == [".", "a"]


def test_times_owners_modes_and_attributes_are_kept_to_the_nanosecond(driver: FolderSnapshotter) -> None:
    pax = {"mtime": "1234567890.123456789", "SCHILY.xattr.user.colour": "blue"}
    seen = files(
        driver, layer(folder("d", 0o1777, pax=pax), Entry("d/f", owner=(70_000, 80_000), mode=0o6711, pax=pax))
    )
    for name, mode, owner in (("d", "0o41777", (0, 0)), ("d/f", "0o106711", (70_000, 80_000))):
        assert seen[name][:5] == (mode, *owner, 1234567890123456789, {"user.colour": b"blue"})


def test_a_file_capability_is_kept_and_survives_its_owner(driver: FolderSnapshotter) -> None:
    pax = {"SCHILY.xattr.security.capability": CAPABILITY}
    seen = files(driver, layer(Entry("ping", data=b"#!", mode=0o755, owner=(1, 1), pax=pax)))
    assert seen["ping"][4] == {"security.capability": CAPABILITY.encode("latin-1")}


def test_all_three_compressions_give_the_same_snapshot(driver: FolderSnapshotter) -> None:
    packed = {
        Compression.NONE: BASE,
        Compression.GZIP: gzip.compress(BASE),
        Compression.ZSTD: zstandard.compress(BASE),
    }
    for compression, blob in packed.items():
        top = unpack(driver, [BASE], raw=[blob], compression=compression)
        assert top == str(Digest.of(BASE))
        driver.remove(top)


def test_layers_are_named_by_their_chain_and_made_once(driver: FolderSnapshotter) -> None:
    second, third = layer(Entry("2")), layer(Entry("3"))
    unpack(driver, [BASE, second])
    first, both = Digest.of(BASE), chain_id(Digest.of(BASE), Digest.of(second))
    assert [info.key for info in driver.walk()] == [str(first), str(both)]
    sink = begin(driver, BASE, second, third)
    assert sink.missing() == (2,)
    assert sink.applied() == 2
    sink.abort()
    sink = begin(driver, BASE, second)
    assert sink.missing() == ()
    assert sink.finish() == str(both)


def begin(driver: FolderSnapshotter, *layers: bytes) -> ImageUnpack:
    return LayerUnpacker(driver, Launcher()).begin(
        [Digest.of(data) for data in layers], [len(data) for data in layers], Budgets()
    )


def left(driver: FolderSnapshotter) -> list[str]:
    return sorted(entry.name for entry in driver.root.iterdir() if entry.is_dir() and entry.name != "locks")


def test_an_abort_leaves_nothing_and_may_be_said_twice(driver: FolderSnapshotter, tmp_path: Path) -> None:
    sink = begin(driver, BASE, layer(Entry("2")))
    (tmp_path / "blob").write_bytes(BASE)
    sink.ready(0, tmp_path / "blob", Compression.NONE)
    sink.abort()
    sink.abort()
    assert left(driver) == []
    assert list(driver.walk()) == []


def test_finishing_without_all_layers_is_an_error(driver: FolderSnapshotter, tmp_path: Path) -> None:
    sink = begin(driver, BASE, layer(Entry("2")))
    (tmp_path / "blob").write_bytes(BASE)
    sink.ready(0, tmp_path / "blob", Compression.NONE)
    with pytest.raises(Failed, match="never handed in"):
        sink.finish()
    assert left(driver) == []


def test_a_blob_that_is_not_there_is_an_error(driver: FolderSnapshotter, tmp_path: Path) -> None:
    sink = begin(driver, BASE)
    sink.ready(0, tmp_path / "nothing", Compression.NONE)
    with pytest.raises(Exception, match="No such file"):
        sink.finish()
    assert left(driver) == []


def test_a_worker_that_is_killed_is_an_error_and_leaves_nothing(driver: FolderSnapshotter, tmp_path: Path) -> None:
    fifo = tmp_path / "blob"
    os.mkfifo(fifo)
    sink = begin(driver, BASE)
    sink.ready(0, fifo, Compression.NONE)
    with fifo.open("wb"):
        for worker in sink._workers:
            os.kill(worker._child.pid, signal.SIGKILL)
        with pytest.raises(Failed, match="ended early"):
            sink.finish()
    assert left(driver) == []


def test_of_two_that_unpack_one_image_the_second_finds_the_firsts_work(
    driver: FolderSnapshotter, tmp_path: Path
) -> None:
    first = begin(driver, BASE)
    found: list[tuple[int, ...]] = []

    def second() -> None:
        sink = begin(driver, BASE)
        found.append(tuple(sink.missing()))
        sink.finish()

    waiting = threading.Thread(target=second)
    waiting.start()
    assert found == []
    (tmp_path / "blob").write_bytes(BASE)
    first.ready(0, tmp_path / "blob", Compression.NONE)
    first.finish()
    waiting.join()
    assert found == [()]
