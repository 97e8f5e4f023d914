"""What every Snapshotter does: the suite that each driver runs."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core import mounts
from core.errors import AgentError
from core.snapshots.ports import (
    SnapshotExists,
    SnapshotInUse,
    SnapshotKind,
    SnapshotMissing,
    Snapshotter,
)


class SnapshotterContract:
    """Subclasses give `driver()`; `here` is a folder of the test's own."""

    here: Path

    def driver(self) -> Snapshotter:
        """A new driver over the same folders as the last one of this test."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> Iterator[None]:
        self.here = tmp_path
        yield
        assert mounts.detach_below(tmp_path) == 0

    @contextmanager
    def show(self, snapshots: Snapshotter, key: str) -> Iterator[Path]:
        """The snapshot mounted for the block."""
        target = self.here / f"mnt-{key}"
        target.mkdir(exist_ok=True)
        mounts.attach(snapshots.mounts(key), target)
        try:
            yield target
        finally:
            mounts.detach(target)

    def base(self, snapshots: Snapshotter, name: str = "base", parent: str | None = None, **files: str) -> str:
        """A committed snapshot with `files` on `parent`."""
        snapshots.prepare("making", parent)
        with self.show(snapshots, "making") as root:
            for file, text in files.items():
                (root / file).write_text(text)
        snapshots.commit(name, "making")
        return name

    def test_a_new_snapshot_without_a_parent_is_an_empty_folder(self) -> None:
        snapshots = self.driver()
        snapshots.prepare("work", None)
        with self.show(snapshots, "work") as root:
            assert list(root.iterdir()) == []
            (root / "f").write_text("x")

    def test_a_committed_snapshot_is_seen_through_one_on_top_of_it(self) -> None:
        snapshots = self.driver()
        snapshots.prepare("next", self.base(snapshots, f="one"))
        with self.show(snapshots, "next") as root:
            assert (root / "f").read_text() == "one"

    def test_a_change_on_top_leaves_what_is_beneath_as_it_was(self) -> None:
        snapshots = self.driver()
        base = self.base(snapshots, f="one", g="two")
        snapshots.prepare("a", base)
        with self.show(snapshots, "a") as root:
            (root / "f").write_text("changed")
            (root / "g").unlink()
        snapshots.view("b", base)
        with self.show(snapshots, "b") as root:
            assert ((root / "f").read_text(), (root / "g").read_text()) == ("one", "two")

    def test_a_removed_file_stays_removed_on_top_of_a_commit(self) -> None:
        snapshots = self.driver()
        base = self.base(snapshots, f="one", g="two")
        snapshots.prepare("a", base)
        with self.show(snapshots, "a") as root:
            (root / "f").unlink()
        snapshots.commit("top", "a")
        snapshots.view("b", "top")
        with self.show(snapshots, "b") as root:
            assert [entry.name for entry in root.iterdir()] == ["g"]

    def test_sixty_snapshots_on_top_of_each_other_can_be_mounted(self) -> None:
        snapshots = self.driver()
        parent: str | None = None
        for number in range(60):
            parent = self.base(snapshots, f"sha256:{number:064x}", parent, **{f"f{number}": "x"})
        snapshots.prepare("top", parent)
        with self.show(snapshots, "top") as root:
            assert len(list(root.iterdir())) == 60

    def test_a_view_cannot_be_written(self) -> None:
        snapshots = self.driver()
        one = self.base(snapshots, "one", f="x")
        two = self.base(snapshots, "two", one, g="y")
        for key, parent in (("v0", None), ("v1", one), ("v2", two)):
            snapshots.view(key, parent)
            with self.show(snapshots, key) as root, pytest.raises(OSError, match="Read-only"):
                (root / "new").write_text("x")

    def test_no_device_can_be_opened_in_any_mount(self) -> None:
        snapshots = self.driver()
        one = self.base(snapshots, "one", f="x")
        for key, parent in (("a", None), ("b", one)):
            snapshots.prepare(key, parent)
            with self.show(snapshots, key) as root:
                os.mknod(root / "null", 0o20666, os.makedev(1, 3))
                with pytest.raises(PermissionError):
                    (root / "null").read_bytes()

    def test_the_root_folder_looks_as_its_parents_does(self) -> None:
        snapshots = self.driver()
        snapshots.prepare("a", None)
        with self.show(snapshots, "a") as root:
            os.chown(root, 12, 34)
            root.chmod(0o751)
            os.utime(root, ns=(5, 10**18 + 7))
        snapshots.commit("one", "a")
        snapshots.prepare("b", "one")
        with self.show(snapshots, "b") as root:
            seen = root.stat()
        assert (seen.st_uid, seen.st_gid, seen.st_mode & 0o7777, seen.st_mtime_ns) == (12, 34, 0o751, 10**18 + 7)

    def test_keys_and_names_are_used_once(self) -> None:
        snapshots = self.driver()
        base = self.base(snapshots)
        snapshots.prepare("a", base)
        for again in (snapshots.prepare, snapshots.view):
            with pytest.raises(SnapshotExists):
                again("a", base)
            with pytest.raises(SnapshotExists):
                again(base, None)
        with pytest.raises(SnapshotExists):
            snapshots.commit(base, "a")
        assert snapshots.stat("a").kind is SnapshotKind.ACTIVE

    def test_only_a_committed_snapshot_is_a_parent(self) -> None:
        snapshots = self.driver()
        snapshots.prepare("a", None)
        snapshots.view("v", None)
        for parent in ("a", "v", "nothing"):
            with pytest.raises(SnapshotMissing):
                snapshots.prepare("b", parent)
        assert {info.key for info in snapshots.walk()} == {"a", "v"}

    def test_only_an_active_snapshot_can_be_committed(self) -> None:
        snapshots = self.driver()
        base = self.base(snapshots)
        snapshots.view("v", base)
        for key in ("v", base, "nothing"):
            with pytest.raises(SnapshotMissing):
                snapshots.commit("new", key)

    def test_what_is_committed_or_gone_has_no_mounts(self) -> None:
        snapshots = self.driver()
        base = self.base(snapshots)
        for key in (base, "nothing"):
            with pytest.raises(SnapshotMissing):
                snapshots.mounts(key)

    def test_a_snapshot_with_others_on_top_cannot_be_removed(self) -> None:
        snapshots = self.driver()
        base = self.base(snapshots)
        snapshots.view("v", base)
        with pytest.raises(SnapshotInUse):
            snapshots.remove(base)
        snapshots.remove("v")
        snapshots.remove(base)
        assert list(snapshots.walk()) == []
        for call in (snapshots.remove, snapshots.stat, snapshots.usage, snapshots.folder):
            with pytest.raises(SnapshotMissing):
                call(base)

    def test_removing_takes_the_files_along(self) -> None:
        snapshots = self.driver()
        base = self.base(snapshots, f="x")
        folder = snapshots.folder(base)
        snapshots.remove(base)
        assert not folder.exists()

    def test_parents_are_listed_before_children(self) -> None:
        snapshots = self.driver()
        parent: str | None = None
        for name in ("c", "b", "a"):
            parent = self.base(snapshots, name, parent)
        snapshots.prepare("work", "b")
        listed = [(info.key, info.parent) for info in snapshots.walk()]
        assert listed == [("c", None), ("b", "c"), ("a", "b"), ("work", "b")]

    def test_usage_counts_files_once_however_many_names_they_have(self) -> None:
        snapshots = self.driver()
        snapshots.prepare("a", None)
        empty = snapshots.usage("a")
        with self.show(snapshots, "a") as root:
            (root / "f").write_bytes(b"x" * 100_000)
            os.link(root / "f", root / "g")
            (root / "s").symlink_to("/nowhere")
        used = snapshots.usage("a")
        assert used.inodes == empty.inodes + 2
        assert 100_000 <= used.bytes - empty.bytes <= 130_000

    def test_a_new_driver_over_the_same_folders_finds_everything(self) -> None:
        snapshots = self.driver()
        base = self.base(snapshots, f="x")
        snapshots.prepare("a", base)
        again = self.driver()
        assert list(again.walk()) == list(snapshots.walk())
        with self.show(again, "a") as root:
            assert (root / "f").read_text() == "x"

    def test_sweeping_keeps_what_is_used(self) -> None:
        snapshots = self.driver()
        base = self.base(snapshots, f="x")
        snapshots.prepare("a", base)
        assert snapshots.sweep() == []
        with self.show(snapshots, "a") as root:
            assert (root / "f").read_text() == "x"

    def test_sweeping_removes_a_folder_that_nobody_recorded(self) -> None:
        snapshots = self.driver()
        folder = self.folders() / "4711"
        (folder / "fs").mkdir(parents=True)
        (self.folders() / ".staging-4712" / "fs").mkdir(parents=True)
        assert sorted(snapshots.sweep()) == [".staging-4712", "4711"]
        assert not folder.exists()

    def test_sweeping_drops_a_record_whose_folder_is_gone_and_all_on_top_of_it(self) -> None:
        snapshots = self.driver()
        base = self.base(snapshots, "base")
        other = self.base(snapshots, "other")
        top = self.base(snapshots, "top", base)
        snapshots.prepare("work", top)
        snapshots.folder(base).rmdir()
        assert {base, top, "work"} <= set(snapshots.sweep())
        assert [info.key for info in snapshots.walk()] == [other]
        assert snapshots.sweep() == []

    def test_threads_may_prepare_and_remove_at_once(self) -> None:
        snapshots = self.driver()
        base = self.base(snapshots, f="x")
        faults: list[Exception] = []

        def churn(number: int) -> None:
            try:
                for turn in range(5):
                    snapshots.prepare(f"{number}-{turn}", base)
                    snapshots.sweep()
                    snapshots.remove(f"{number}-{turn}")
            except (AgentError, OSError) as fault:
                faults.append(fault)

        threads = [threading.Thread(target=churn, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert faults == []
        assert [info.key for info in snapshots.walk()] == [base]

    def folders(self) -> Path:
        """Where the driver keeps its folders."""
        return self.here / "snapshots"
