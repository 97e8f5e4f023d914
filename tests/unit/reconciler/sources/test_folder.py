"""A folder as a source: what is read, when it has changed, and what it never reads."""

import os
from pathlib import Path

import pytest

from core.errors import Invalid, NotFound, OverLimit
from reconciler.sources.folder import FolderFetcher


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "edge/sub").mkdir(parents=True)
    (tmp_path / "edge/b.yaml").write_text("b")
    (tmp_path / "edge/sub/a.yaml").write_text("a")
    (tmp_path / "top.yaml").write_text("top")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/config").write_text("x")
    return tmp_path


def paths(fetcher: FolderFetcher, revision: str) -> list[str]:
    """The paths of what a revision holds below the sub-path."""
    with fetcher.tree(revision) as tree:
        return [entry.path for entry in tree.entries()]


def test_a_revision_is_all_names_and_bytes_and_only_they(folder: Path) -> None:
    fetcher = FolderFetcher(folder, "edge")
    first = fetcher.fetch()
    assert first.startswith("folder:")
    assert paths(fetcher, first) == ["edge/b.yaml", "edge/sub/a.yaml"]
    os.utime(folder / "edge/b.yaml", (1, 1))
    assert fetcher.fetch() == first, "times are no content"
    (folder / ".git/config").write_text("y")
    assert fetcher.fetch() == first, "hidden names are no content"
    (folder / "edge/b.yaml").rename(folder / "edge/c.yaml")
    second = fetcher.fetch()
    assert second != first
    (folder / "edge/c.yaml").write_text("B")
    assert fetcher.fetch() not in (first, second)
    assert not fetcher.held(first)
    assert fetcher.descends("anything", first)


def test_a_change_is_told_when_two_looks_in_a_row_see_the_same(folder: Path) -> None:
    fetcher = FolderFetcher(folder, "")
    fetcher.fetch()
    assert not fetcher.moved()
    (folder / "new.yaml").write_text("n")
    assert not fetcher.moved(), "it may still be written"
    (folder / "new.yaml").write_text("newer")
    assert not fetcher.moved(), "it was still written"
    assert fetcher.moved()
    fetcher.fetch()
    assert not fetcher.moved()


def test_a_link_is_followed_within_the_folder_and_never_out_of_it(folder: Path) -> None:
    (folder / "edge/in.yaml").symlink_to("../top.yaml")
    (folder / "edge/out.yaml").symlink_to("/etc/passwd")
    (folder / "edge/up.yaml").symlink_to("../../../x")
    fetcher = FolderFetcher(folder, "edge")
    with fetcher.tree(fetcher.fetch()) as tree:
        assert tree.read(tree.find("edge/in.yaml")) == b"top"
        for path in ("edge/out.yaml", "edge/up.yaml"):
            with pytest.raises(Invalid, match="leads out"):
                tree.find(path)


def test_what_is_no_regular_file_is_not_read(folder: Path) -> None:
    os.mkfifo(folder / "edge/pipe.yaml")
    (folder / "edge/large.yaml").write_bytes(b"x" * ((1 << 20) + 1))
    fetcher = FolderFetcher(folder, "edge")
    revision = fetcher.fetch()
    assert "edge/pipe.yaml" not in paths(fetcher, revision)
    with fetcher.tree(revision) as tree, pytest.raises(OverLimit):
        tree.read(tree.find("edge/large.yaml"))


def test_a_folder_that_is_not_there_and_a_path_that_is_not_in_it_are_told_apart(folder: Path) -> None:
    with pytest.raises(NotFound, match="there is no folder"):
        FolderFetcher(folder / "none", "").fetch()
    fetcher = FolderFetcher(folder, "nodes/edge")
    revision = fetcher.fetch()
    with pytest.raises(NotFound, match="nodes/edge is not there"):
        paths(fetcher, revision)


def test_what_was_let_go_of_is_read_again_by_a_fetch(folder: Path) -> None:
    fetcher = FolderFetcher(folder, "")
    revision = fetcher.fetch()
    fetcher.let_go()
    assert not fetcher.held(revision)
    with pytest.raises(NotFound), fetcher.tree(revision):
        pytest.fail("it is not held")
    assert fetcher.fetch() == revision
    assert fetcher.held(revision)
