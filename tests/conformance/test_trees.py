"""Git's tree keeps what every tree promises; it has some more that only git has."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.errors import Invalid, NotFound
from core.process import Launcher
from reconciler.sources.fetchers import git_fetcher
from reconciler.sources.git_access import Access
from reconciler.sources.repositories import Home, Limits, wanted
from reconciler.sources.revisions import Tree
from tests.conformance.tree_contract import TreeContract
from tests.git_server import Content, Module, Repository


class TestGitTree(TreeContract):
    @pytest.fixture(autouse=True)
    def make(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.made = 0

    @contextmanager
    def tree(self, files: Mapping[str, Content], path: str = "") -> Iterator[Tree]:
        """A repository with one commit, fetched."""
        self.made += 1
        place = self.folder / str(self.made)
        repository = Repository.create(place / "origin.git")
        repository.commit(files)
        home = Home(place / "root", place / "state")
        what = wanted({"url": f"file://{repository.folder}"}, path, allow_file=True)
        fetcher = git_fetcher(home, what, Access(), Launcher(), Limits())
        with fetcher.tree(fetcher.fetch()) as tree:
            yield tree

    def test_a_submodule_is_listed_and_never_fetched(self) -> None:
        files = {".gitmodules": '[submodule "x"]\n\tpath = m\n\turl = file:///etc\n', "m": Module(), "a": "a"}
        with self.tree(files) as tree:
            kinds = {entry.path: entry.kind for entry in tree.entries()}
            assert kinds == {".gitmodules": "file", "a": "file", "m": "module"}
            with pytest.raises(NotFound) as missing:
                tree.find("m/x.yaml")
            assert "submodule" in missing.value.hint()
            with pytest.raises(Invalid):
                tree.read(tree.find("m"))
