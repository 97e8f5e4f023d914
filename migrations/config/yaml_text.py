"""YAML to a tree and back, comments and order kept.

Rules of this file: a configuration is one mapping of mappings, lists and scalars; anchors, tags and second documents
are errors. libyaml's events say where things stand; comments are what lies between them. Scalars are read by YAML 1.2's
core schema, and written as they were read while they are the same.
"""

from __future__ import annotations

import re
from typing import Any, Final

from ruamel.yaml import events as ev
from ruamel.yaml.cyaml import CParser  # type: ignore[attr-defined] # from its C module, without stubs
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from migrations.config.tree import BadDocument, Node, Origin, Path, Table, plain, spell

_MOST_DEPTH: Final = 32
_WORDS: Final = {"true": True, "false": False, "null": None, "~": None, "": None}
_NUMBER: Final = re.compile(r"[-+]?(0|[1-9][0-9]*|0o[0-7]+|0x[0-9a-fA-F]+)")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_AFTER: Final = re.compile(r"[ \t]+(#.*)")


def parse_yaml(data: bytes, file: str) -> Table:
    """The tree of a YAML document; raises `BadDocument` with line and column."""
    try:
        text = data.decode().removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadDocument(file, line, 1, "is not UTF-8", "Save it as UTF-8.") from None
    try:
        return _Reader(text, file).document()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        what = f"is not YAML: {error.problem or 'it cannot be read'}"
        raise BadDocument(file, line, column, what, "Check indentation, quotes and brackets here and above.") from None
    except YAMLError as error:
        raise BadDocument(file, 1, 1, f"is not YAML: {str(error).splitlines()[0]}") from None


class _Reader:
    """Walks the events of one document; `_line` is the first line (from 0) whose comments are not spoken for."""

    def __init__(self, text: str, file: str) -> None:
        self.file, self.lines, self._line = file, text.split("\n"), 0
        self._next = CParser(text.encode()).get_event

    def document(self) -> Table:
        """All of it."""
        root = Table(explicit=True)
        self._next()
        if isinstance(self._next(), ev.DocumentStartEvent):
            event = self._next()
            empty = isinstance(event, ev.ScalarEvent) and event.value == "" and event.style is None
            if not isinstance(event, ev.MappingStartEvent) and not empty:
                raise self._bad(event, "holds no mapping", "Write keys and values, such as version: 2.")
            if not empty:
                self._mapping(root, ())
            self._next()
            if not isinstance(after := self._next(), ev.StreamEndEvent):
                raise self._bad(after, "is a second document", "A configuration is one document: join them.")
        root.end += self._between(len(self.lines) - (self.lines[-1] == ""))
        return root

    def _bad(self, event: Any, message: str, advice: str = "") -> BadDocument:
        return BadDocument(self.file, event.start_mark.line + 1, event.start_mark.column + 1, message, advice)

    def _between(self, end: int) -> list[str]:
        """Comment lines from where the last thing ended up to line `end`."""
        found = [line.strip() for line in self.lines[self._line : end]]
        self._line = max(self._line, end)
        return [line for line in found if not line or line.startswith("#")]

    def _mapping(self, table: Table, at: Path) -> None:
        while not isinstance(event := self._next(), ev.MappingEndEvent):
            if not isinstance(event, ev.ScalarEvent) or event.anchor or event.tag:
                raise self._bad(event, "is no key", "Keys are plain words; anchors and tags have no place here.")
            path = (*at, event.value)
            if event.value in table.entries:
                raise self._bad(event, f"{spell(path)} is there twice", "Remove one of the two.")
            mark = event.start_mark
            origin = Origin(self.file, mark.line + 1, mark.column + 1, path)
            node = Node(event.value, None, self._between(mark.line), place=origin)
            table.entries[event.value] = node
            self._line = max(self._line, mark.line)
            self._value(node, self._next(), origin)
            if node.table is None or not node.table.entries:
                node.origins = (origin,)

    def _value(self, node: Node, event: Any, origin: Origin) -> None:
        if len(origin.path) > _MOST_DEPTH:
            raise self._bad(event, "is nested too deeply")
        if isinstance(event, ev.AliasEvent) or event.anchor or event.tag:
            raise self._bad(event, "uses an anchor or a tag", "Write the value out.")
        if isinstance(event, ev.MappingStartEvent):
            node.value = Table(inline=bool(event.flow_style))
            if not event.flow_style:
                self._ends(node, origin.line - 1, len(self.lines[origin.line - 1].split(":", 1)[0]) + 1)
            self._mapping(node.value, origin.path)
            return
        node.value = self._plain(node, event, 0)

    def _plain(self, node: Node, event: Any, depth: int) -> Any:
        """A scalar or a list of such; nested mappings in lists become dicts."""
        if depth > _MOST_DEPTH:
            raise self._bad(event, "is nested too deeply")
        if isinstance(event, ev.AliasEvent) or event.anchor or event.tag:
            raise self._bad(event, "uses an anchor or a tag", "Write the value out.")
        if isinstance(event, ev.ScalarEvent):
            value = resolve(event.value) if event.style in (None, "") and event.implicit[0] else event.value
            end = event.end_mark
            if depth == 0 and end.line == event.start_mark.line and value is not None:
                node.raw = self.lines[end.line][event.start_mark.column : end.column]
            self._ends(node, end.line if end.column or end.line == event.start_mark.line else end.line - 1, end.column)
            return value
        if isinstance(event, ev.SequenceStartEvent):
            items = []
            while not isinstance(inner := self._next(), ev.SequenceEndEvent):
                node.before += [line for line in self._between(inner.start_mark.line) if line]
                items.append(self._plain(node, inner, depth + 1))
            if event.flow_style:
                self._ends(node, inner.end_mark.line, inner.end_mark.column)
            return items
        found = Table()
        self._mapping(found, ())
        return plain(found)

    def _ends(self, node: Node, line: int, column: int) -> None:
        """Something ends here: the comment on the rest of its line is its own."""
        if line >= self._line and (found := _AFTER.search(self.lines[line], max(column - 1, 0))):
            comment = found[1].rstrip()
            if node.after:
                node.before.append(comment)
            else:
                node.after = comment
        self._line = max(self._line, line + 1)


def resolve(text: str) -> Any:
    """A plain scalar by YAML 1.2's core schema."""
    if (low := text.lower()) in _WORDS and text in (low, low.upper(), low.capitalize()):
        return _WORDS[low]
    if _NUMBER.fullmatch(text):
        return int(text, 0) if "o" in text or "x" in text else int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
