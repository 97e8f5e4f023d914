"""What a Source reads: a revision as a tree of names and bytes, and how a revision comes to the node. A port.

Words: a *source* is a repository or a folder; its *top* is the repository's root or the folder itself. A *revision* is
a commit's full id, or what stands for one where there are no commits. A *path* is relative to the top, `/` between
names, without `.` and `..`; the top itself is "". A source's *sub-path* is the folder below which manifests are looked
for; what they name may lie anywhere in the source, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Final, Literal, Protocol, TypeAlias

from core.errors import Invalid, NotFound
from core.values import dataclass

MOST_BYTES: Final = 1 << 20
"""Of one manifest, or of one file that a manifest names."""
MOST_TOTAL: Final = 64 << 20
"""Of all that is read from one revision."""
MOST_PLACED: Final = 2 << 30
"""Of all that manifests of one revision name to lie in a file of its own."""
MOST_ENTRIES: Final = 100_000
_MOST_LINKS: Final = 40
_LONGEST_PATH: Final = 4096

EntryKind: TypeAlias = Literal["file", "link", "module", "folder"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a tree.

    `id` stands for the bytes: what was made of a file may be kept under its id, whatever its path, source or revision.
    `size` in bytes; of a link the length of its text; 0 for a folder and for a module (another repository, of which
    only the name is known here: nothing is ever fetched for it).
    """

    path: str
    id: str
    size: int
    kind: EntryKind


@dataclass(frozen=True, slots=True)
class Description:
    """A commit for people: `author` as `Name <address>`, `time` in seconds since 1970, `subject` one line."""

    author: str
    time: float
    subject: str


class Tree(Protocol):
    """One revision, read only. It belongs to one thread, inside the block that `Fetcher.tree` opens."""

    def entries(self) -> Sequence[Entry]:
        """Files, links and modules below the sub-path, however deep, sorted by the names on their paths.

        Folders are not among them, links are not followed. Raises `NotFound` (no such sub-path), `Invalid` (it is no
        folder; a name that no checkout could have), `OverLimit` (more than `MOST_ENTRIES`), `Corrupt`.
        """

    def read(self, entry: Entry, limit: int = MOST_BYTES) -> bytes:
        """A file's bytes. Raises `OverLimit` (larger than `limit`, or more than `MOST_TOTAL` read so far), `Invalid`
        (not a file), `Corrupt`.
        """

    def place(self, entry: Entry) -> str:
        """The absolute path on this node under which the bytes of a file lie, large as it may be, for as long as what
        is applied or kept of the Source names it.

        Raises `Invalid` (it is not such a file), `OverLimit` (`MOST_PLACED`), `Corrupt`, `NoSpace`.
        """

    def find(self, path: str) -> Entry:
        """What is at `path`, which may hold `.` and `..`; links are followed, the last one too, so that what comes
        back is no link and its `path` is where it really lies.

        Raises `NotFound`, and `Invalid` for what leads out of the source, or round in a circle.
        """


class Fetcher(Protocol):
    """Brings revisions of one source to the node. `fetch` and `keep` are called by one thread at a time."""

    def fetch(self) -> str:
        """Bring what the Source asks for, and return its revision. Raises `AgentError`s; what is held stays held."""

    def held(self, revision: str) -> bool:
        """Whether `tree` can read this revision without the network."""

    def descends(self, revision: str, ancestor: str) -> bool:
        """Whether `revision` is `ancestor` or came after it. False when that cannot be known."""

    def tree(self, revision: str) -> AbstractContextManager[Tree]:
        """A held revision to read from, inside the block. Raises `NotFound` when it is not held."""

    def describe(self, revision: str) -> Description:
        """A held revision for people. Raises `NotFound`."""

    def keep(self, revisions: Collection[str]) -> None:
        """These stay held (those that are held), beside the one fetched last; any other may go from now on."""


def follow(path: str, look: Callable[[str], Entry | None], text: Callable[[Entry], str]) -> Entry:
    """Where `path` leads by the kernel's rules, but never above the top: `Tree.find` for who has the two functions.

    `look` gives the entry at a path of which no part is a link; `text` what a link says. Raises as `find` does.
    """
    done: list[str] = []
    todo = path.split("/")[::-1]
    if path.startswith("/"):
        raise _leaves(path)
    links = 0
    while todo:
        name = todo.pop()
        if name in ("", "."):
            continue
        if name == "..":
            if not done:
                raise _leaves(path)
            done.pop()
            continue
        here = "/".join([*done, name])
        if (at := look(here)) is None:
            raise NotFound(f"{path} does not exist in the source", advice=f"There is no {here}; check the path.")
        if at.kind == "link":
            links += 1
            to = text(at) if links <= _MOST_LINKS and at.size <= _LONGEST_PATH else ""
            if not to:
                raise Invalid(f"{path} is a link that leads nowhere", advice="Replace the link by the file.")
            if to.startswith("/"):
                raise _leaves(path)
            todo.extend(to.split("/")[::-1])
            continue
        if at.kind != "folder" and todo:
            what = "a submodule, which is not fetched" if at.kind == "module" else "not a folder"
            raise NotFound(f"{path} does not exist in the source", advice=f"{here} is {what}.")
        done.append(name)
    found = look("/".join(done))
    if found is None:
        raise NotFound(f"{path or 'the top'} does not exist in the source")
    return found


def _leaves(path: str) -> Invalid:
    return Invalid(f"{path} leads out of the source", advice="Keep what manifests name inside their source.")
