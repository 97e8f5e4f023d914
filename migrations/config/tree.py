"""A configuration as a tree that remembers where each key stood and what was said about it in comments.

Rules of this file: it knows no format and does no I/O. A tree is changed in place by the steps; a node that moves takes
its comments and its origins along, so that who asks later where a key went reads it off the tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import field
from typing import Any, Final, NamedTuple, TypeAlias

from core.errors import Invalid
from core.values import dataclass

Path: TypeAlias = tuple[str, ...]

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


class BadDocument(Invalid):
    """A document that cannot be used, with its place: `file`, `line` and `column` from 1 (0: the file as a whole)."""

    def __init__(self, file: str, line: int, column: int, message: str, advice: str = "") -> None:
        place = f"{file}:{line}:{column}" if line else file
        super().__init__(f"{place}: {message}", advice=advice or "Correct the file; nothing was changed.")
        self.file, self.line, self.column = file, line, column


class Origin(NamedTuple):
    """A key of the input: its file, its place in it (from 1), its path as it was written there."""

    file: str
    line: int
    column: int
    path: Path

    def bad(self, message: str, advice: str = "") -> BadDocument:
        """The error that says what is wrong with this key."""
        return BadDocument(self.file, self.line, self.column, f"{spell(self.path)} {message}", advice)


@dataclass(slots=True)
class Table:
    """Keys in order; `end`: comment lines after the last of them; `inline`: written in braces."""

    entries: dict[str, Node] = field(default_factory=dict)
    end: list[str] = field(default_factory=list)
    inline: bool = False
    explicit: bool = False
    """It has a header of its own in TOML."""


@dataclass(slots=True, eq=False)
class Node:
    """One key. `before`: comment lines above it ("" for an empty line); `after`: the comment on its line; `raw` and
    `spelled`: how value and key were written, "" once they changed; `origins`: the input keys that it came from (only
    of leaves, to which an empty table belongs); `indent`: columns before it (-1: nobody has written it yet)."""

    key: str
    value: Any
    before: list[str] = field(default_factory=list)
    after: str = ""
    raw: str = ""
    spelled: str = ""
    origins: tuple[Origin, ...] = ()
    place: Origin | None = None
    indent: int = -1

    @property
    def table(self) -> Table | None:
        """Its value when that is a table."""
        return self.value if isinstance(self.value, Table) else None

    def set(self, value: Any) -> None:
        """Give it another value; comments that stood inside of the old one move above it."""
        self.before += comments_in(self.raw)
        self.value, self.raw = value, ""

    def comments(self) -> list[str]:
        """All comment lines of this node and of those below it, for when it goes."""
        found = [line for line in self.before if line]
        found += [self.after] if self.after else []
        if isinstance(self.value, Table):
            found += [line for node in self.value.entries.values() for line in node.comments()]
            return found + [line for line in self.value.end if line]
        if isinstance(self.value, Rows):
            return found + [line for node in self.value for line in node.comments()]
        return found + comments_in(self.raw)


class Rows(list[Node]):
    """An array of tables; its nodes have no key."""


_PIECES: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"""|\'\'\'.*?\'\'\'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|(?P<comment>#[^\n]*)', re.DOTALL
)


def comments_in(raw: str) -> list[str]:
    """The comments inside of a value of several lines."""
    return [found["comment"].rstrip() for found in _PIECES.finditer(raw) if found["comment"]] if "#" in raw else []


def spell(path: Path) -> str:
    """`plugins."io.containerd.grpc.v1.cri".registry`."""
    return ".".join(part if _BARE.fullmatch(part) else f'"{part}"' for part in path)


def plain(value: Any) -> Any:
    """Dicts, lists and scalars of a value in a tree."""
    if isinstance(value, Table):
        return {key: plain(node.value) for key, node in value.entries.items()}
    if isinstance(value, Rows):
        return [plain(node.value) for node in value]
    return value


def find(root: Table, path: Path) -> Node | None:
    """The node at `path`; None where there is none."""
    node: Node | None = None
    table: Table | None = root
    for part in path:
        node = table.entries.get(part) if table is not None else None
        if node is None:
            return None
        table = node.table
    return node


def leaves(root: Table, at: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Every leaf with its path, in order; an empty table and an array of tables are leaves."""
    for key, node in root.entries.items():
        if node.table is not None and node.table.entries:
            yield from leaves(node.table, (*at, key))
        else:
            yield (*at, key), node


def put(root: Table, path: Path, node: Node) -> None:
    """Place `node` at `path`, with the tables above it; what was there is replaced."""
    table = root
    for part in path[:-1]:
        above = table.entries.get(part)
        if above is None:
            above = table.entries[part] = Node(part, Table())
        elif above.table is None:
            raise ValueError(f"{spell(path)}: {part} is no table")
        above.origins = ()
        table = above.value
    if node.key != path[-1]:
        node.key, node.spelled = path[-1], ""
    table.entries[path[-1]] = node


def take(root: Table, path: Path) -> Node | None:
    """Remove the node at `path` and give it; tables that are empty then go too, their comments to the next key."""
    if (node := find(root, path)) is None:
        return None
    _tables(root, path)[-1].entries.pop(path[-1])
    _prune(root, path)
    return node


def _tables(root: Table, path: Path) -> list[Table]:
    """The tables above `path`, as far as they are there, the root first."""
    tables = [root]
    for part in path[:-1]:
        above = tables[-1].entries.get(part)
        if above is None or above.table is None:
            break
        tables.append(above.table)
    return tables


def _prune(root: Table, path: Path) -> None:
    """Remove the tables above `path` that hold nothing any more."""
    parents = _tables(root, path)
    for depth in range(len(parents) - 1, 0, -1):
        if parents[depth].entries:
            break
        gone = parents[depth - 1].entries[path[depth - 1]]
        after_it = _next(parents[depth - 1], gone.key)
        del parents[depth - 1].entries[gone.key]
        leave(parents[depth - 1], after_it, gone.comments())


def shift(root: Table, old: Path, new: Path) -> Node | None:
    """Take what is at `old` to `new`, and give it; it stands where it stood, as near as may be."""
    if (node := find(root, old)) is None:
        return None
    depth = next(i for i in range(len(old)) if old[i] != new[i])
    table = _tables(root, old)[depth]
    at = list(table.entries).index(old[depth])
    stays = new[depth] in table.entries
    _tables(root, old)[-1].entries.pop(old[-1])
    put(root, new, node)
    node.indent = node.indent if len(old) == len(new) else -1
    if not stays:
        keys = [key for key in table.entries if key != new[depth]]
        keys.insert(at, new[depth])
        table.entries = {key: table.entries[key] for key in keys}
    _prune(root, old)
    return node


def _next(table: Table, key: str) -> Node | None:
    """The key after `key`."""
    keys = list(table.entries)
    at = keys.index(key) + 1
    return table.entries[keys[at]] if at < len(keys) else None


def leave(table: Table, after_it: Node | None, comments: list[str]) -> None:
    """Keep comments of what went, above the key after it, or at the end of the table."""
    if after_it is not None:
        after_it.before[:0] = comments
    else:
        table.end += comments


def remove(root: Table, path: Path) -> Node | None:
    """`take`, for good: the comments stay in the document."""
    node = find(root, path)
    above = find(root, path[:-1]) if path[:-1] else None
    table = above.table if above is not None else root
    if node is None or table is None:
        return None
    after_it = _next(table, path[-1])
    if after_it is None and len(table.entries) == 1 and path[:-1]:
        table.end += node.comments()
    else:
        leave(table, after_it, node.comments())
    return take(root, path)
