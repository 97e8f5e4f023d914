"""Where the tests of git sources happen: a node's two folders, and what lies in the way of a fetch."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from core.errors import AgentError
from core.process import Launcher
from reconciler.sources.fetchers import git_fetcher
from reconciler.sources.git_access import Access
from reconciler.sources.repositories import Home, Limits, Wanted, wanted
from reconciler.sources.revisions import Fetcher
from tests.git_server import Content, Repository

TOP: Final = Path(__file__).parents[2]
NOTHING: Final = Access()
USUAL: Final = Limits(seconds=30.0)
MIB: Final = 1 << 20

# Fetches in a process of its own, and says at the end how much memory that process had at most (KiB).
ALONE: Final = """
import sys
from pathlib import Path
from core.errors import AgentError
from core.process import Launcher
from reconciler.sources.fetchers import git_fetcher
from reconciler.sources.git_access import Access
from reconciler.sources.repositories import Home, Limits, wanted
import git, git.db
def peak():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
before, said = peak(), ""
what = wanted({"url": sys.argv[1]}, "", allow_file=True)
fetcher = git_fetcher(Home(Path(sys.argv[2]), Path(sys.argv[3])), what, Access(), Launcher(), Limits(seconds=60.0))
try:
    said = fetcher.fetch()
    with fetcher.tree(said) as tree:
        for entry in tree.entries():
            tree.read(entry)
except AgentError as error:
    said = type(error).__name__
print(said, peak() - before)
"""


@dataclass(frozen=True, slots=True)
class Ground:
    """A place for one source's copies and for the repositories that it comes from."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> Self:
        """An empty one."""
        return cls(folder)

    @property
    def home(self) -> Home:
        """Where the fetcher's things lie."""
        return Home(self.folder / "root" / "nodes", self.folder / "state" / "git")

    @property
    def copy(self) -> Path:
        """The copy of the repository."""
        return self.home.folder / "git"

    def repository(self, files: dict[str, Content] | None = None, name: str = "nodes.git") -> Repository:
        """A repository with one commit of `files`; None: without one."""
        made = Repository.create(self.folder / "served" / name)
        if files is not None:
            made.commit(files)
        return made

    def wanted(self, url: str | Repository, path: str = "", **ref: str) -> Wanted:
        """What a Source applied by hand would ask for."""
        address = f"file://{url.folder}" if isinstance(url, Repository) else url
        return wanted({"url": address, "ref": ref}, path, allow_file=True)

    def fetcher(
        self, url: str | Repository, shown: Access = NOTHING, limits: Limits = USUAL, path: str = "", **ref: str
    ) -> Fetcher:
        """A fetcher for this ground's home."""
        return git_fetcher(self.home, self.wanted(url, path, **ref), shown, Launcher(), limits)

    def alone(self, url: str | Repository, *before: str | Path) -> subprocess.CompletedProcess[str]:
        """Fetches and reads everything in a process of its own, started by the command `before`."""
        address = f"file://{url.folder}" if isinstance(url, Repository) else url
        arguments = [*before, sys.executable, "-c", ALONE, address, self.home.folder, self.home.private]
        return subprocess.run([*map(str, arguments)], capture_output=True, text=True, cwd=TOP, timeout=120)

    def leftovers(self) -> list[str]:
        """Files below the private folder, and staging folders beside the copy."""
        private = [str(path) for path in self.home.private.rglob("*")] if self.home.private.exists() else []
        return private + [str(path) for path in self.home.folder.glob(".staging-*")]


def failure(fetcher: Fetcher) -> AgentError:
    """The error of a fetch that must fail."""
    try:
        commit = fetcher.fetch()
    except AgentError as error:
        return error
    raise AssertionError(f"fetched {commit}")


def files(fetcher: Fetcher, revision: str) -> dict[str, bytes]:
    """All files of a revision."""
    with fetcher.tree(revision) as tree:
        return {entry.path: tree.read(entry) for entry in tree.entries() if entry.kind == "file"}


def git_processes(place: Path) -> Iterator[int]:
    """Pids of git, ssh and their shells that work for a source below `place`."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path(f"/proc/{name}/environ").read_bytes()
            command = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        if f"GIT_DIR={place}".encode() in environment and b"git" in command:
            yield int(name)
