"""Files that a containerd configuration imports, and how containerd lays one over the other.

Rules of this file: files are read through a port. A file is read once, nearest to the first file first; one that is
missing, or that imports a file which imports it, is an error. Each file is brought to the target by its own version
before any two are joined.
"""

from __future__ import annotations

from collections.abc import Callable
from posixpath import dirname, join, normpath
from typing import Any, Final, Protocol

from migrations.config.migrate import Document, read_containerd, step_up
from migrations.config.tree import BadDocument, Node, Origin, Path, find, put, remove
from migrations.config.work import Outcome, Settings, Work, origins_of

_WHOLE: Final = ("proxy_plugins", "stream_processors", "timeouts")
_MOST_FILES: Final = 1000


class Files(Protocol):
    """The port to the files of a node."""

    def read(self, path: str) -> bytes:
        """The bytes of a file; raises `OSError`."""
        ...

    def matching(self, pattern: str) -> list[str]:
        """The files that match a pattern with `*`, sorted."""
        ...


def read_all(first: str, files: Files, settings: Settings) -> list[Document]:
    """The file `first` and all that it imports, itself first; raises `BadDocument`, and `OSError` for `first`."""
    found: dict[str, Document] = {}
    todo: list[tuple[str, tuple[str, ...]]] = [(first, ())]
    data = {first: files.read(first)}
    while todo:
        path, above = todo.pop(0)
        if path in found:
            continue
        found[path] = read_containerd(data[path], path, settings)
        for place, wanted in _wanted(found[path].work, path, files):
            if wanted in (*above, path):
                raise place.bad(f"imports {wanted}, which imports this file", "Remove one of the two imports.")
            if wanted not in data:
                data[wanted] = _read(wanted, files, place)
            todo.append((wanted, (*above, path)))
        if len(todo) > _MOST_FILES:
            raise BadDocument(first, 0, 0, "imports too many files")
    return list(found.values())


def _wanted(work: Work, path: str, files: Files) -> list[tuple[Origin, str]]:
    node = work.get("imports")
    if node is None or node.place is None:
        return []
    wanted = []
    for name in node.value:
        whole = normpath(join(dirname(path), name))
        wanted += [(node.place, one) for one in (files.matching(whole) if "*" in whole else [whole])]
    return wanted


def _read(path: str, files: Files, place: Origin) -> bytes:
    try:
        return files.read(path)
    except FileNotFoundError:
        raise place.bad(f"names {path}, which is not there", "Correct the path; nothing was changed.") from None
    except OSError as error:
        raise place.bad(f"names {path}, which cannot be read: {error.strerror}") from None


def join_all(documents: list[Document], target: int) -> Document:
    """One document of all, each brought to `target` before."""
    for document in documents:
        step_up(document.work, target)
    first = documents[0]
    for other in documents[1:]:
        _Join(first.work, other.work).join()
    if len(documents) > 1:
        first.work.drop(("imports",), "what they hold is in this document now", Outcome.TRANSLATED)
    return first


class _Join:
    """Lays the document `over` on `base`."""

    def __init__(self, base: Work, over: Work) -> None:
        self.base, self.over = base, over

    def join(self) -> None:
        """All keys of it, with their accounts."""
        base, over = self.base, self.over
        base.inputs.update(over.inputs)
        base.notes.update(over.notes)
        base.private |= over.private
        base.told += over.told
        for name, text in over.files.items():
            known = base.files.setdefault(name, text)
            if known != text and name.startswith("secrets/"):
                base.told.append(f"{name}: two files hold a login for this registry; that of the first one is kept")
            elif known != text:
                base.files[name] = _both(known, text)
        for key in list(over.tree.entries):
            self._key(key, over.tree.entries[key])
        base.tree.end += over.tree.end

    def _key(self, key: str, node: Node) -> None:
        mine = self.base.tree.entries.get(key)
        if key in ("version", "imports"):
            why = f"all are of version {self.base.version} now" if key == "version" else "their content is in here now"
            self._leave(node, Outcome.TRANSLATED, why)
        elif mine is None:
            put(self.base.tree, (key,), node)
        elif isinstance(node.value, list) and isinstance(mine.value, list):
            joined = list(dict.fromkeys([*mine.value, *node.value]))
            mine.before += node.comments()
            if joined != mine.value:
                mine.set(joined)
            mine.origins += node.origins
            self.base.note(node, Outcome.TRANSLATED, "the two lists are one now")
        elif key == "plugins":
            self._deep((key,), node, lambda value: True)
        elif key in _WHOLE:
            for name in list(node.value.entries if node.table is not None else ()):
                self._replace((key, name), node.value.entries[name])
        else:
            self._deep((key,), node, bool)

    def _deep(self, path: Path, node: Node, counts: Callable[[Any], bool]) -> None:
        mine = find(self.base.tree, path)
        if mine is None:
            put(self.base.tree, path, node)
        elif node.table is not None and mine.table is not None:
            if not node.table.entries:
                self._leave(node, Outcome.DEFAULT, "an empty table")
            mine.before += node.before
            for key in list(node.table.entries):
                self._deep((*path, key), node.table.entries[key], counts)
            mine.table.end += node.table.end
        elif node.table is not None or mine.table is not None or counts(node.value):
            self._replace(path, node)
        else:
            self._leave(node, Outcome.INERT, "an import cannot set back to nothing what another file sets")

    def _replace(self, path: Path, node: Node) -> None:
        mine = find(self.base.tree, path)
        if mine is not None:
            place = node.place
            where = f"{place.file}:{place.line}" if place is not None else self.over.file
            self._tell(mine, Outcome.INERT, f"{where} says another, and is laid over this")
            remove(self.base.tree, path)
        put(self.base.tree, path, node)

    def _leave(self, node: Node, outcome: Outcome, why: str) -> None:
        """What `over` says has no effect; its comments stay."""
        self._tell(node, outcome, why)
        self.base.tree.end += node.comments()

    def _tell(self, node: Node, outcome: Outcome, why: str) -> None:
        for origin in origins_of(node):
            self.base.notes.pop(origin, None)
        self.base.note(node, outcome, why)


def _both(one: str, other: str) -> str:
    """Two `hosts.toml` texts as one: what `one` says of a host, and of the registry itself, stays."""
    head, *blocks = f"\n{other}".split("\n[host.")
    top = "" if "server =" in one else head.strip("\n")
    more = [f"[host.{block}" for block in blocks if f"[host.{block.split(']')[0]}]" not in one]
    return "\n".join(part.strip("\n") + "\n" for part in (top, one, *more) if part)
