"""A document as read: plain values, and beside them where each key and value stands in the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from typing import Any

from core.values import dataclass
from reconciler.sources.faults import Fault

Path = tuple[str | int, ...]


Mark = tuple[int, int]
"""A place in a file: line and column; both count from 1, columns in characters."""


@dataclass(slots=True, eq=False)
class Node:
    """One value. `text` is the source text of a plain scalar, None for what is quoted, a list or a mapping.

    `value` of a list or mapping holds the children's values; `key` is where its key stands (None: it has none).
    """

    value: Any
    mark: Mark
    text: str | None = None
    children: dict[str, Node] | list[Node] | None = None
    key: Mark | None = None

    def child(self, part: str | int) -> Node | None:
        """The node one step down; None when there is none."""
        if isinstance(self.children, dict):
            return self.children.get(str(part))
        if isinstance(self.children, list) and isinstance(part, int) and 0 <= part < len(self.children):
            return self.children[part]
        return None

    def at(self, path: Sequence[str | int]) -> Node | None:
        """The node that `path` leads to; None when it ends before."""
        node: Node | None = self
        for part in path:
            node = None if node is None else node.child(part)
        return node

    def place(self, path: Sequence[str | int], *, at_key: bool = False) -> Mark:
        """Where `path` stands: its value, or its key; where it is not there, the key of the last part that is."""
        node, whole = self, True
        for part in path:
            below = node.child(part)
            if below is None:
                whole = False
                break
            node = below
        if node.key is not None and (at_key or not whole):
            return node.key
        return node.mark

    def items(self) -> Iterator[tuple[str | int, Node]]:
        """The children with their keys or places."""
        if isinstance(self.children, dict):
            yield from self.children.items()
        elif self.children is not None:
            yield from enumerate(self.children)

    def walk(self, path: Path = ()) -> Iterator[tuple[Path, Node]]:
        """This node and all below it, each with its path."""
        yield path, self
        for part, node in self.items():
            yield from node.walk((*path, part))

    def measure(self) -> tuple[int, int]:
        """How many values it is, itself one of them, and how many levels deep."""
        below = [child.measure() for _, child in self.items()]
        return 1 + sum(count for count, _ in below), 1 + max((height for _, height in below), default=0)

    def replace_scalars(self, change: Callable[[Path, Node], Any], path: Path = ()) -> None:
        """Set the value of each scalar below this node to what `change` returns, in the values of its parents too."""
        for part, node in self.items():
            if node.children is None:
                node.value = self.value[part] = change((*path, part), node)
            else:
                node.replace_scalars(change, (*path, part))


@dataclass(slots=True)
class Document:
    """One document of a file. `doubtful`: nodes whose plain text other readers take differently, and empty ones."""

    root: Node
    faults: list[Fault] = field(default_factory=list)
    doubtful: list[Node] = field(default_factory=list)
