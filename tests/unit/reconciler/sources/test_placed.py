"""Archives of a revision: taken out whole or not at all, dropped when nobody names them, and never without bound."""

import hashlib
import io
from pathlib import Path

import pytest

from core.errors import Invalid, OverLimit
from reconciler.sources.folder import FolderFetcher
from reconciler.sources.git_tree import GitTree
from reconciler.sources.placed import Differs, drop, place
from reconciler.sources.revisions import MOST_PLACED, Entry

DATA = b"archive" * 400_000


def blob(data: bytes) -> str:
    """Git's id."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def test_a_file_is_taken_out_once_and_dropped_when_nobody_names_it(tmp_path: Path) -> None:
    first = place(tmp_path, blob(DATA), len(DATA), io.BytesIO(DATA).read)
    assert first.read_bytes() == DATA
    assert place(tmp_path, blob(DATA), len(DATA), io.BytesIO(b"not read").read) == first
    other = place(tmp_path, blob(b"x"), 1, io.BytesIO(b"x").read)
    drop(tmp_path, {str(other)})
    assert (first.exists(), other.exists()) == (False, True)
    drop(tmp_path / "nothing", set())


@pytest.mark.parametrize("read", [DATA[:-1], DATA[:-1] + b"!"])
def test_bytes_that_are_not_what_the_id_says_leave_nothing(tmp_path: Path, read: bytes) -> None:
    with pytest.raises(Differs):
        place(tmp_path, blob(DATA), len(DATA), io.BytesIO(read).read)
    assert [*tmp_path.rglob("*")] == [tmp_path / "archives"]


def test_a_file_that_was_cut_is_taken_out_again(tmp_path: Path) -> None:
    path = place(tmp_path, blob(DATA), len(DATA), io.BytesIO(DATA).read)
    path.write_bytes(DATA[:100])
    assert place(tmp_path, blob(DATA), len(DATA), io.BytesIO(DATA).read).read_bytes() == DATA


class Huge:
    """Objects of which nothing is ever read."""

    def root(self, commit: str) -> str:
        return "0" * 40

    def listing(self, tree: str, *, deep: bool) -> bytes:
        return b""

    def blob(self, id: str, size: int) -> bytes:
        raise AssertionError("read")

    def place(self, id: str, size: int) -> str:
        return f"/placed/{id}"


def test_the_archives_of_one_revision_have_a_bound_together() -> None:
    tree = GitTree(Huge(), "c", "", "here")
    half = MOST_PLACED // 2 + 1
    for _ in range(3):
        assert tree.place(Entry("a", "1" * 40, half, "file")) == f"/placed/{'1' * 40}"
    with pytest.raises(OverLimit):
        tree.place(Entry("b", "2" * 40, half, "file"))
    with pytest.raises(Invalid):
        tree.place(Entry("c", "3" * 40, 0, "folder"))


def test_in_a_folder_an_archive_is_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "images/layout").mkdir(parents=True)
    (tmp_path / "images/box.tar").write_bytes(DATA)
    fetcher = FolderFetcher(tmp_path, "")
    with fetcher.tree(fetcher.fetch()) as tree:
        assert tree.place(tree.find("images/box.tar")) == str(tmp_path / "images/box.tar")
        assert tree.place(tree.find("images/layout")) == str(tmp_path / "images/layout")
