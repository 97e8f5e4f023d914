"""One document on its way from version to version, and what became of each of its keys.

Rules of this file: every leaf of the input carries its origin through all steps. Where a key went is read off the tree
at the end; what left the tree must have been noted, so that a key without an outcome is a fault of the program and
cannot be overlooked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from core.values import dataclass
from migrations.config.tree import Node, Origin, Path, Rows, Table, find, leaves, put, remove, shift, spell


class Outcome(StrEnum):
    """What became of a key."""

    MOVED = "moved"
    """It means the same, there."""
    TRANSLATED = "translated"
    """It is said in another way, there."""
    DEFAULT = "default"
    """It says what holds without it."""
    INERT = "inert"
    """It is kept, or was there, and has no effect."""
    DROPPED = "dropped"
    """It is gone; `why` says what to do."""


class Entry(NamedTuple):
    """One line of the report: the key as it was written, its place, its outcome, where it is now ("" : nowhere)."""

    key: str
    file: str
    line: int
    outcome: Outcome
    to: str
    why: str


class Settings(NamedTuple):
    """What the steps must know of where the result will lie.

    `folder`: where `certs.d` and `secrets` will be (absolute); `ours`: the end is our configuration; `hosts` gives the
    bytes of a `hosts.toml` that is there already, by its path, or None.
    """

    folder: str = "/etc/containerd"
    ours: bool = False
    hosts: Callable[[str], bytes | None] = lambda path: None

    @property
    def certs(self) -> str:
        """The folder of `<host>/hosts.toml`."""
        return f"{self.folder}/certs.d"


_NOWHERE: Final = Settings()


class Note(NamedTuple):
    """What a step says of a key; `to` for what is not in the document."""

    outcome: Outcome
    why: str
    to: str = ""


@dataclass(slots=True)
class Work:
    """The document that steps change. `files`: texts beside it, by path below the folder; `private`: which of them
    hold secrets."""

    tree: Table
    version: int
    file: str
    settings: Settings = _NOWHERE
    files: dict[str, str] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    notes: dict[Origin, Note] = field(default_factory=dict)
    inputs: dict[Origin, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    """Sentences about the whole, for people."""

    def __post_init__(self) -> None:
        self.inputs = {origin: spell(origin.path) for _, node in leaves(self.tree) for origin in node.origins}

    def get(self, *path: str) -> Node | None:
        """The node at `path`."""
        return find(self.tree, path)

    def value(self, *path: str) -> Any:
        """The value at `path`; None where there is none."""
        node = find(self.tree, path)
        return None if node is None else node.value

    def table(self, *path: str) -> Table:
        """The table at `path`; an empty one, outside of the tree, where there is none."""
        node = find(self.tree, path)
        return node.table if node is not None and node.table is not None else Table()

    def names(self, *path: str) -> list[str]:
        """The keys of the table at `path`."""
        return list(self.table(*path).entries)

    def note(self, node: Node, outcome: Outcome, why: str, to: str = "") -> None:
        """Say what became of all leaves at and below `node`. A default stays one whatever becomes of it; else being
        dropped is what counts, then what was said first."""
        for origin in origins_of(node):
            known = self.notes.get(origin)
            known = known or Note(Outcome.MOVED, "")
            strong = outcome in (Outcome.DROPPED, Outcome.INERT) and known.outcome is not Outcome.DEFAULT
            if strong or known.outcome is Outcome.MOVED:
                self.notes[origin] = Note(outcome, why, to)

    def drop(self, path: Path, why: str, outcome: Outcome = Outcome.DROPPED, to: str = "") -> None:
        """Remove what is at `path`; its comments stay. Nothing where nothing is."""
        if (node := remove(self.tree, path)) is not None:
            self.note(node, outcome, why, to)

    def move(self, old: Path, new: Path, *, keep: str = "new", how: str = "") -> None:
        """Move what is at `old` to `new`; tables are joined. Where both hold a key, `keep` says whose stays."""
        if (node := find(self.tree, old)) is None or old == new:
            return
        there = find(self.tree, new)
        if node.table is not None and there is not None and there.table is not None:
            there.before, node.before = there.before + node.before, []
            for key in list(node.table.entries):
                self.move((*old, key), (*new, key), keep=keep, how=how)
            if not node.table.entries and find(self.tree, old) is node:
                self.drop(old, f"empty; see {spell(new)}", Outcome.DEFAULT)
        elif there is not None and keep == "new":
            self.drop(old, f"{spell(new)} is set too, and wins", Outcome.INERT)
        else:
            if there is not None:
                self.drop(new, f"{spell(old)} is set too, and wins", Outcome.INERT)
            moved = shift(self.tree, old, new)
            if moved is not None and how:
                self.note(moved, Outcome.MOVED, how)

    def translate(self, old: Path, new: Path, value: Any, how: str) -> None:
        """Say what is at `old` in another way at `new`; what is at `new` already wins."""
        if (node := find(self.tree, old)) is None:
            return
        if old != new and find(self.tree, new) is not None:
            self.drop(old, f"{spell(new)} is set too, and wins", Outcome.INERT)
            return
        node.set(value)
        self.note(node, Outcome.TRANSLATED, how)
        if old != new:
            shift(self.tree, old, new)

    def add(self, path: Path, value: Any, because: Node | None = None) -> None:
        """Set what nobody wrote, or what follows from `because` beside where that is."""
        origins = tuple(origins_of(because)) if because is not None else ()
        put(self.tree, path, Node(path[-1], value, origins=origins))

    def entries(self, version: str) -> list[Entry]:
        """What became of each key of the input, in its order; raises `AssertionError` for one without an outcome."""
        places: dict[Origin, list[str]] = {}
        for path, node in leaves(self.tree):
            for origin in node.origins:
                places.setdefault(origin, []).append(spell(path))
        return [self._entry(origin, key, places.get(origin, []), version) for origin, key in self.inputs.items()]

    def _entry(self, origin: Origin, key: str, places: list[str], version: str) -> Entry:
        note = self.notes.get(origin)
        if note is None and not places:
            raise AssertionError(f"{origin.file}:{origin.line}: {key} was lost without a word")
        if note is None:
            note = Note(Outcome.MOVED, f"the same in {version}" if places == [key] else "")
        to = ", ".join(dict.fromkeys([*places, *([note.to] if note.to else [])]))
        return Entry(key, origin.file, origin.line, note.outcome, to, note.why)


def origins_of(node: Node) -> Iterator[Origin]:
    """The origins of all leaves at and below a node."""
    yield from node.origins
    if isinstance(node.value, Table):
        for inner in node.value.entries.values():
            yield from origins_of(inner)
    elif isinstance(node.value, Rows):
        for row in node.value:
            yield from origins_of(row)


LATEST: Final = 4
