"""What every `Tree` promises. A driver's tests subclass `TreeContract` and say how a tree is made of files."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from core.errors import Invalid, NotFound, OverLimit
from reconciler.sources.revisions import MOST_BYTES, MOST_TOTAL, Tree
from tests.git_server import Content, Link

TREE: Mapping[str, Content] = {
    "b.yaml": "b",
    "a/z.yaml": "z",
    "a/b/c.yaml": "c",
    "a.yaml": "other",
    "a-b/x.yaml": "x",
    "A.yaml": "A",
    "ü/ö.yaml": "ö",
}
LINKS: Mapping[str, Content] = {
    "base/app.yaml": "app",
    "base/deep/more.yaml": "more",
    "nodes/edge/app.yaml": Link("../../base/app.yaml"),
    "nodes/edge/all": Link("../../base"),
    "nodes/chain.yaml": Link("edge/app.yaml"),
    "nodes/twice": Link("edge/all/deep"),
    "bad/out.yaml": Link("../../etc/passwd"),
    "bad/absolute.yaml": Link("/etc/passwd"),
    "bad/top": Link(".."),
    "bad/far": Link("top/../x"),
    "bad/self.yaml": Link("self.yaml"),
    "bad/ring": Link("gnir"),
    "bad/gnir": Link("ring"),
    "bad/gone.yaml": Link("nothing.yaml"),
}


class TreeContract:
    """One behaviour a test."""

    def tree(self, files: Mapping[str, Content], path: str = "") -> AbstractContextManager[Tree]:
        """A new source that holds `files`, read at sub-path `path`."""
        raise NotImplementedError

    # Lists.

    def test_files_are_listed_in_order_of_the_names_on_their_paths(self) -> None:
        with self.tree(TREE) as tree:
            paths = [entry.path for entry in tree.entries()]
        assert paths == ["A.yaml", "a/b/c.yaml", "a/z.yaml", "a-b/x.yaml", "a.yaml", "b.yaml", "ü/ö.yaml"]

    def test_folders_are_not_listed_and_links_are_not_followed(self) -> None:
        with self.tree(LINKS, "nodes") as tree:
            found = {entry.path: entry.kind for entry in tree.entries()}
        links = ("nodes/chain.yaml", "nodes/edge/all", "nodes/edge/app.yaml", "nodes/twice")
        assert found == dict.fromkeys(links, "link")

    def test_a_sub_path_leaves_the_rest_out_and_paths_begin_at_the_top(self) -> None:
        for path in ("a", "a/", "./a", "a/b/.."):
            with self.tree(TREE, path) as tree:
                assert [entry.path for entry in tree.entries()] == ["a/b/c.yaml", "a/z.yaml"]

    def test_a_sub_path_may_be_reached_by_a_link(self) -> None:
        with self.tree(LINKS, "nodes/edge/all") as tree:
            assert [entry.path for entry in tree.entries()] == ["base/app.yaml", "base/deep/more.yaml"]

    def test_a_sub_path_that_is_not_there_is_an_error_that_names_what_is(self) -> None:
        with self.tree(TREE, "nodes") as tree, pytest.raises(NotFound) as missing:
            tree.entries()
        assert "nodes" in missing.value.message
        assert "a-b" in missing.value.hint()

    @pytest.mark.parametrize("path", ["..", "a/../..", "/", "/etc", "a/../../etc"])
    def test_a_sub_path_that_leads_out_is_refused(self, path: str) -> None:
        with self.tree(TREE, path) as tree, pytest.raises(Invalid):
            tree.entries()

    def test_a_sub_path_that_is_a_file_is_refused(self) -> None:
        with self.tree(TREE, "a.yaml") as tree, pytest.raises(Invalid):
            tree.entries()

    def test_the_size_is_that_of_the_bytes(self) -> None:
        with self.tree({"a": "", "b": "ü", "c": b"\0" * 1000}) as tree:
            assert [entry.size for entry in tree.entries()] == [0, 2, 1000]

    # Identity.

    def test_equal_bytes_have_one_id_wherever_they_lie_and_others_have_others(self) -> None:
        with self.tree({"a": "same", "b/c": "same", "d": "Same", "e": ""}) as tree:
            ids = {entry.path: entry.id for entry in tree.entries()}
        with self.tree({"z": "same"}) as other:
            again = other.entries()[0].id
        assert ids["a"] == ids["b/c"] == again
        assert len(set(ids.values())) == 3

    # Bytes.

    def test_the_bytes_come_back_as_they_were(self) -> None:
        for data in (b"", b"a", b"\r\n\0\xff", bytes(range(256)) * 40):
            with self.tree({"x/f": data}) as tree:
                assert tree.read(tree.entries()[0]) == data

    def test_a_file_may_have_as_many_bytes_as_the_limit_and_none_more(self) -> None:
        with self.tree({"a": b"x" * MOST_BYTES, "b": b"x" * (MOST_BYTES + 1), "c": "four"}) as tree:
            fits, large, small = tree.entries()
            assert len(tree.read(fits)) == MOST_BYTES
            with pytest.raises(OverLimit):
                tree.read(large)
            assert len(tree.read(large, limit=MOST_BYTES + 1)) == MOST_BYTES + 1
            with pytest.raises(OverLimit):
                tree.read(small, limit=3)

    def test_all_that_is_read_has_a_limit_together(self) -> None:
        with self.tree({"a": b"x" * MOST_BYTES}) as tree:
            entry = tree.entries()[0]
            for _ in range(MOST_TOTAL // MOST_BYTES):
                tree.read(entry)
            with pytest.raises(OverLimit):
                tree.read(entry)

    def test_a_link_and_a_folder_have_no_bytes(self) -> None:
        with self.tree(LINKS, "nodes") as tree:
            with pytest.raises(Invalid):
                tree.read(tree.entries()[0])
            with pytest.raises(Invalid):
                tree.read(tree.find("base"))

    def test_a_large_file_lies_whole_under_a_path_of_this_node(self) -> None:
        data = bytes(range(256)) * (MOST_BYTES // 256 + 1)
        with self.tree({"a/large": data, "a/small": b"x", "link": Link("a/large")}) as tree:
            path = Path(tree.place(tree.find("link")))
            assert path.is_absolute()
            assert path.read_bytes() == data
            assert Path(tree.place(tree.find("a/small"))).read_bytes() == b"x"
            before = path.stat()
            assert tree.place(tree.find("a/large")) == str(path)
            assert path.stat() == before

    # Following.

    @pytest.mark.parametrize(
        ("path", "real"),
        [
            ("base/app.yaml", "base/app.yaml"),
            ("./base//deep/../app.yaml", "base/app.yaml"),
            ("nodes/../base/app.yaml", "base/app.yaml"),
            ("nodes/edge/app.yaml", "base/app.yaml"),
            ("nodes/chain.yaml", "base/app.yaml"),
            ("nodes/edge/all/app.yaml", "base/app.yaml"),
            ("nodes/edge/all/../base/app.yaml", "base/app.yaml"),
            ("nodes/twice/more.yaml", "base/deep/more.yaml"),
        ],
    )
    def test_a_path_and_the_links_on_it_are_followed(self, path: str, real: str) -> None:
        with self.tree(LINKS, "nodes") as tree:
            found = tree.find(path)
            assert (found.path, found.kind) == (real, "file")
            assert tree.read(found) == (b"app" if real.endswith("app.yaml") else b"more")

    @pytest.mark.parametrize(("path", "real"), [("", ""), (".", ""), ("base/..", ""), ("nodes/edge/all", "base")])
    def test_a_folder_is_found_too(self, path: str, real: str) -> None:
        with self.tree(LINKS) as tree:
            found = tree.find(path)
        assert (found.path, found.kind, found.size) == (real, "folder", 0)

    @pytest.mark.parametrize(
        "path",
        ["..", "../x", "/etc/passwd", "base/../../x", "bad/out.yaml", "bad/absolute.yaml", "bad/far", "bad/top/../x"],
    )
    def test_what_leads_out_of_the_source_is_refused_by_its_path(self, path: str) -> None:
        with self.tree(LINKS) as tree, pytest.raises(Invalid) as refused:
            tree.find(path)
        assert path in refused.value.message

    @pytest.mark.parametrize("path", ["bad/self.yaml", "bad/ring", "bad/ring/x"])
    def test_links_in_a_circle_are_refused(self, path: str) -> None:
        with self.tree(LINKS) as tree, pytest.raises(Invalid):
            tree.find(path)

    @pytest.mark.parametrize("path", ["nothing", "base/nothing", "bad/gone.yaml", "base/app.yaml/x", "Base/app.yaml"])
    def test_what_is_not_there_is_not_found(self, path: str) -> None:
        with self.tree(LINKS) as tree, pytest.raises(NotFound):
            tree.find(path)
