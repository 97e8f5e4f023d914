"""A repository in memory, what fetches from it, and Revisions that keep no files: for the simulated node."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from core.errors import AgentError, NotFound
from reconciler.model.identity import Key, revision_name
from reconciler.sources.folder import FolderTree
from reconciler.sources.revisions import Description, Entry, Tree
from reconciler.store.functions import Wanted
from reconciler.store.port import ObjectStore
from reconciler.store.revisions import Revisions


@dataclass(slots=True)
class SimRepository:
    """Commits by id, each with its parent and files; `trouble` is what a fetch raises; `held`: what was fetched."""

    commits: dict[str, tuple[str, Mapping[str, str]]] = field(default_factory=dict)
    head: str = ""
    trouble: AgentError | None = None
    held: set[str] = field(default_factory=set)

    def commit(self, files: Mapping[str, str], *, onto: str | None = None) -> str:
        """A new commit as head; `onto`: its parent in place of the head ("": it has none)."""
        id = f"{len(self.commits) + 1:040x}"
        self.commits[id] = self.head if onto is None else onto, files
        self.head = id
        return id

    def lineage(self, id: str) -> Iterator[str]:
        """The commit and those before it."""
        while id:
            yield id
            id = self.commits[id][0]


class SimFetcher:
    """Fetches from a repository in memory, as `Fetcher` says."""

    def __init__(self, repository: SimRepository, inside: str) -> None:
        self.repository = repository
        self.inside = inside

    def fetch(self) -> str:
        """The head; raises the repository's trouble."""
        if self.repository.trouble is not None:
            raise self.repository.trouble
        self.repository.held.add(self.repository.head)
        return self.repository.head

    def held(self, revision: str) -> bool:
        """Whether it was fetched and is kept."""
        return revision in self.repository.held

    def descends(self, revision: str, ancestor: str) -> bool:
        """By the commits' parents."""
        return ancestor in self.repository.lineage(revision)

    @contextmanager
    def tree(self, revision: str) -> Iterator[Tree]:
        """The files of a commit that is held."""
        if not self.held(revision):
            raise NotFound(f"{revision} is not held")
        files = self.repository.commits[revision][1]
        entries = {path: Entry(path, path, len(text), "file") for path, text in files.items()}
        folders = {str(one) for path in files for one in PurePosixPath(path).parents}
        entries |= {path: Entry(path, "", 0, "folder") for path in folders}
        yield FolderTree(self.inside, entries, {path: text.encode() for path, text in files.items()})

    def describe(self, revision: str) -> Description:
        """Nothing to say."""
        return Description("", 0.0, revision)

    def keep(self, revisions: Collection[str]) -> None:
        """All others go, but the head."""
        self.repository.held &= {*revisions, self.repository.head}


class KeptRevisions(Revisions):
    """Revisions whose files are in memory; they outlive an agent."""

    def __init__(self, store: ObjectStore, keep: int = 3) -> None:
        super().__init__(Path("/nonexistent"), store, keep)
        self.files: dict[str, list[Wanted]] = {}

    def kept(self, source: Key, number: int) -> list[Wanted]:
        """See `Revisions`."""
        name = revision_name(source.name, number)
        if name not in self.files:
            raise NotFound(f"{name} is not kept any more")
        return [replace(one) for one in self.files[name]]

    def _write(self, name: str, wanted: Iterable[Wanted]) -> None:
        self.files[name] = list(wanted)
