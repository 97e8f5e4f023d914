"""A commit as a `Tree`: what git's lists of names mean, and what is refused in them.

Rules of this file: names come from strangers. One that no checkout could have (`..`, `.git` in any case, one twice) is
an error with its path; what a link says is followed by us, and never beyond the top.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, Protocol

from core.errors import Invalid, NotFound, OverLimit
from reconciler.sources.git_faults import Damaged
from reconciler.sources.revisions import MOST_BYTES, MOST_ENTRIES, MOST_PLACED, MOST_TOTAL, Entry, EntryKind, follow

_KINDS: Final[dict[str, EntryKind]] = {"120000": "link", "160000": "module", "040000": "folder"}
_LONGEST_LINK: Final = 4096
_NAMES_SHOWN: Final = 10
_MADE_BY_NO_GIT: Final = "No git would make such a commit; make it anew."


class Objects(Protocol):
    """The object store of one copy. All raise `Damaged`; `listing` raises `OverLimit` too."""

    def root(self, commit: str) -> str:
        """The id of a commit's tree."""

    def listing(self, tree: str, *, deep: bool) -> bytes:
        """The entries of a tree as `ls-tree -l -z` prints them; `deep`: those of all trees below it, but no trees."""

    def blob(self, id: str, size: int) -> bytes:
        """The bytes of a file or link, which are `size` and hash to `id`."""

    def place(self, id: str, size: int) -> str:
        """The path of a file outside of the copy with the bytes of a file; raises `NoSpace` too."""


class GitTree:
    """See `Tree`. `where` names the repository in errors."""

    def __init__(self, objects: Objects, commit: str, path: str, where: str) -> None:
        self._objects = objects
        self._path = path
        self._where = where
        self._top = Entry("", objects.root(commit), 0, "folder")
        self._folders: dict[str, dict[str, Entry]] = {}
        self._left = MOST_TOTAL
        self._placed: dict[str, int] = {}

    def entries(self) -> Sequence[Entry]:
        """See `Tree.entries`."""
        folder = self._sub_path()
        found = []
        for entry in _parsed(self._objects.listing(folder.id, deep=True), folder.path):
            found.append(entry)
            if len(found) > MOST_ENTRIES:
                raise OverLimit(
                    f"{self._where} has more than {MOST_ENTRIES} files below {folder.path or 'its top'}",
                    advice="Name the folder of the manifests as spec.path.",
                )
        found.sort(key=lambda entry: entry.path.split("/"))
        for one, other in pairwise(found):
            if one.path == other.path:
                raise Invalid(f"{one.path} is in its folder twice", advice=_MADE_BY_NO_GIT)
        return found

    def read(self, entry: Entry, limit: int = MOST_BYTES) -> bytes:
        """See `Tree.read`."""
        if entry.kind != "file":
            raise Invalid(f"{entry.path} is not a file but a {entry.kind}", advice="Give a regular file.")
        if entry.size > limit:
            raise OverLimit(f"{entry.path} is larger than {limit} bytes", advice="Split it into several files.")
        self._left -= entry.size
        if self._left < 0:
            raise OverLimit(
                f"the manifests in {self._where} are together larger than {MOST_TOTAL} bytes",
                advice="Name the folder of the manifests as spec.path, or split it into several Sources.",
            )
        return self._objects.blob(entry.id, entry.size)

    def place(self, entry: Entry) -> str:
        """See `Tree.place`."""
        if entry.kind != "file":
            raise Invalid(f"{entry.path} is not a file but a {entry.kind}", advice="In a repository, give a tar file.")
        self._placed[entry.id] = entry.size
        if sum(self._placed.values()) > MOST_PLACED:
            raise OverLimit(
                f"{entry.path} is too much: archives in one revision have at most {MOST_PLACED >> 30} GiB together",
                advice="Bring them to the node by other means, and name them by absolute paths.",
            )
        return self._objects.place(entry.id, entry.size)

    def find(self, path: str) -> Entry:
        """See `Tree.find`."""
        return follow(path, self._look, self._text)

    def _sub_path(self) -> Entry:
        try:
            folder = self.find(self._path)
        except NotFound as error:
            names = sorted(name for name, entry in self._listing(self._top).items() if entry.kind == "folder")
            known = ", ".join(names[:_NAMES_SHOWN]) or "none"
            raise NotFound(error.message, advice=f"Correct spec.path; folders at its top: {known}.") from None
        if folder.kind != "folder":
            raise Invalid(f"{self._path} is not a folder but a {folder.kind}", advice="Name a folder as spec.path.")
        return folder

    def _look(self, path: str) -> Entry | None:
        if not path:
            return self._top
        parent, _, name = path.rpartition("/")
        folder = self._look(parent)
        if folder is None or folder.kind != "folder":
            return None
        return self._listing(folder).get(name)

    def _listing(self, folder: Entry) -> dict[str, Entry]:
        if folder.path not in self._folders:
            names = {}
            for entry in _parsed(self._objects.listing(folder.id, deep=False), folder.path):
                names[entry.path.rpartition("/")[2]] = entry
            self._folders[folder.path] = names
        return self._folders[folder.path]

    def _text(self, link: Entry) -> str:
        if link.size > _LONGEST_LINK:
            return ""
        return self._objects.blob(link.id, link.size).decode("utf-8", "backslashreplace")


def _parsed(listing: bytes, below: str) -> Iterator[Entry]:
    """The entries in what `ls-tree -l -z` prints: `mode SP type SP id SP* size TAB path NUL`."""
    for line in _split(listing):
        head, _, name = line.partition(b"\t")
        try:
            mode, _, id, size = head.decode("ascii").split()
            text = name.decode("utf-8", "backslashreplace")
            entry = Entry(
                f"{below}/{text}" if below else text, id, 0 if size == "-" else int(size), _KINDS.get(mode, "file")
            )
        except ValueError:
            raise Damaged("a list of names is not what git prints") from None
        for part in text.split("/"):
            if part in ("", ".", "..") or part.lower() == ".git":
                raise Invalid(
                    f"{entry.path!r} is a name that no file may have",
                    advice=_MADE_BY_NO_GIT,
                )
        yield entry


def _split(listing: bytes) -> Iterator[bytes]:
    """The pieces that end in NUL, one at a time: a list of a million names is not made into a million pieces."""
    start = 0
    while (end := listing.find(b"\0", start)) >= 0:
        yield listing[start:end]
        start = end + 1
