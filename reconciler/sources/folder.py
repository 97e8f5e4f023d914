"""A folder of this node as a source: read whole, as one revision, whose id is a hash over all names and bytes.

Rules of this file: nothing is read through a link that leads out, and never a file that is not a regular one; what is
read while somebody writes is not taken: names, sizes and times must be the same before and after. Names that begin with
`.` are left out (editors, git). The revision read last lies in memory until it is let go of.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from core.digest import hash8
from core.errors import AgentError, Busy, Corrupt, Invalid, NotFound, OverLimit, from_os_error
from core.syscalls import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from reconciler.sources.revisions import MOST_BYTES, MOST_TOTAL, Description, Entry, Tree, follow

SCHEME: Final = "folder:"
MOST_NAMES: Final = 20_000
_DEEP: Final = 32

Seen = Mapping[str, tuple[int, ...]]
"""Names below the folder, each with mode, size, time of change and inode: another one means that something changed."""


def look(folder: Path) -> Seen:
    """What is in the folder, without reading it. Raises `AgentError`s."""
    seen: dict[str, tuple[int, ...]] = {}
    try:
        for path, status in _walk(str(folder), "", _DEEP):
            seen[path] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino)
            if len(seen) > MOST_NAMES:
                advice = "Keep a source's folder to its manifests and the files that they name."
                raise OverLimit(f"{folder} holds more than {MOST_NAMES} names", advice=advice)
    except FileNotFoundError as error:
        if not folder.is_dir():
            raise NotFound(f"there is no folder {folder}", advice="Make it, or correct the Source.") from None
        raise Busy(f"{folder} changes while it is read") from error
    except OSError as error:
        raise from_os_error(error, f"reading {error.filename or folder}") from error
    return seen


def _walk(base: str, inside: str, deep: int) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(os.path.join(base, inside)) as entries:
        found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in found:
        path = f"{inside}/{entry.name}" if inside else entry.name
        yield path, entry.stat(follow_symlinks=False)
        if entry.is_dir(follow_symlinks=False):
            if deep == 0:
                raise OverLimit(f"{entry.path} lies too many folders deep", advice="Nest folders less.")
            yield from _walk(base, path, deep - 1)


class FolderTree:
    """One revision of a folder, in memory: the bytes of its files, the texts of its links, None for a folder."""

    def __init__(
        self, inside: str, entries: Mapping[str, Entry], texts: Mapping[str, bytes], folder: Path | None = None
    ) -> None:
        self._folder = folder
        self._inside = inside
        self._entries = entries
        self._texts = texts

    def entries(self) -> Sequence[Entry]:
        """See `Tree`."""
        if self._inside and (top := self._look(self._inside)) is None:
            raise NotFound(f"{self._inside} is not there", advice="Correct the source's path.")
        if self._inside and top is not None and top.kind != "folder":
            raise Invalid(f"{self._inside} is not a folder", advice="Correct the source's path.")
        prefix = f"{self._inside}/" if self._inside else ""
        found = (one for one in self._entries.values() if one.kind != "folder" and one.path.startswith(prefix))
        return sorted(found, key=lambda one: one.path.split("/"))

    def read(self, entry: Entry, limit: int = MOST_BYTES) -> bytes:
        """See `Tree`."""
        if entry.kind != "file":
            raise Invalid(f"{entry.path} is not a regular file", advice="Give a regular file.")
        if entry.size > limit:
            raise OverLimit(f"{entry.path} is larger than {limit >> 20} MiB", advice="Split it into several files.")
        if entry.id not in self._texts:
            raise Corrupt(f"{entry.path} was not read")
        return self._texts[entry.id]

    def place(self, entry: Entry) -> str:
        """See `Tree`: where it lies; a folder too."""
        if self._folder is None or entry.kind not in ("file", "folder"):
            raise Invalid(f"{entry.path} lies in no folder of this node", advice="Write an absolute path.")
        return str(self._folder / entry.path)

    def find(self, path: str) -> Entry:
        """See `Tree`."""
        return follow(path, self._look, lambda entry: os.fsdecode(self._texts[entry.id]))

    def _look(self, path: str) -> Entry | None:
        return self._entries.get(path) if path else Entry("", "", 0, "folder")


class FolderFetcher:
    """A folder as a `Fetcher`. One an object; `moved` may be asked from another thread."""

    def __init__(self, folder: Path, inside: str) -> None:
        self.folder = folder
        self._inside = inside
        self._held: tuple[str, FolderTree] | None = None
        self._seen: Seen = {}
        self._before: Seen = {}

    def fetch(self) -> str:
        """Read the folder; returns `folder:<40 hex digits>`. Raises `Busy` while somebody writes into it."""
        self._seen = {}  # until it has been read: whatever it is then is a change
        seen = look(self.folder)
        entries, texts = self._read(seen)
        if look(self.folder) != seen:
            raise Busy(f"{self.folder} changes while it is read")
        whole = hashlib.sha256()
        for path, entry in sorted(entries.items()):
            whole.update(f"{path}\0{entry.kind}\0{entry.id}\n".encode(errors="surrogateescape"))
        revision = f"{SCHEME}{whole.hexdigest()[:40]}"
        self._held = revision, FolderTree(self._inside, entries, texts, self.folder.resolve())
        self._seen = self._before = seen
        return revision

    def moved(self) -> bool:
        """Whether the folder is not as it was read, and does not change just now: the same at two looks in a row."""
        try:
            seen = look(self.folder)
        except AgentError:
            return False  # the next fetch says why
        calm, self._before = seen == self._before, seen
        return calm and seen != self._seen

    def held(self, revision: str) -> bool:
        """See `Fetcher`."""
        return self._held is not None and self._held[0] == revision

    def descends(self, revision: str, ancestor: str) -> bool:
        """A folder has no history: what is in it now is what comes next."""
        return True

    @contextmanager
    def tree(self, revision: str) -> Iterator[Tree]:
        """See `Fetcher`."""
        held = self._held
        if held is None or held[0] != revision:
            raise NotFound(f"{revision} is not held")
        yield held[1]

    def describe(self, revision: str) -> Description:
        """Nobody signs a folder."""
        return Description("", 0.0, str(self.folder))

    def keep(self, revisions: Collection[str]) -> None:
        """Only what was read last is ever held."""

    def let_go(self) -> None:
        """Free the memory of what was read: it has been applied."""
        self._held = None

    def _read(self, seen: Seen) -> tuple[dict[str, Entry], dict[str, bytes]]:
        entries: dict[str, Entry] = {}
        texts: dict[str, bytes] = {}
        total = 0
        base = os.open(self.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for path, (mode, size, *_) in seen.items():
                if stat.S_ISDIR(mode):
                    entries[path] = Entry(path, "", 0, "folder")
                elif stat.S_ISLNK(mode) or (stat.S_ISREG(mode) and size <= MOST_BYTES):
                    data = self._bytes(base, path, link=stat.S_ISLNK(mode))
                    total += len(data)
                    id = hashlib.sha256(data).hexdigest()
                    texts[id] = data
                    entries[path] = Entry(path, id, len(data), "link" if stat.S_ISLNK(mode) else "file")
                elif stat.S_ISREG(mode):
                    entries[path] = Entry(path, f"large-{hash8(str(seen[path]))}", size, "file")
                if total > MOST_TOTAL:
                    advice = "Keep a source's folder to its manifests and the files that they name."
                    raise OverLimit(f"{self.folder} holds more than {MOST_TOTAL >> 20} MiB", advice=advice)
        finally:
            os.close(base)
        return entries, texts

    def _bytes(self, base: int, path: str, *, link: bool) -> bytes:
        try:
            if link:
                return os.fsencode(os.readlink(path, dir_fd=base))
            resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
            with open(openat2(base, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, resolve=resolve), "rb") as file:
                return file.read(MOST_BYTES + 1)[:MOST_BYTES]
        except FileNotFoundError as error:
            raise Busy(f"{self.folder} changes while it is read") from error
        except OSError as error:
            raise from_os_error(error, f"reading {self.folder}/{path}") from error
