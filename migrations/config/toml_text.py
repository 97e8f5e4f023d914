"""TOML to a tree and back, comments, order and spelling kept.

Rules of this file: tomllib says whether a text is TOML and what a value means; here it is only cut into keys. What is
not touched is written as it was read.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from migrations.config.tree import BadDocument, Node, Origin, Path, Rows, Table

_MOST_DEPTH: Final = 64
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_PART: Final = re.compile(r'[ \t]*(?P<raw>[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\')[ \t]*')
_STRING: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})|\'\'\'.*?\'\'\'(?:\'{0,2})|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', re.DOTALL
)
_PLAIN: Final = re.compile(r"[^,\]}#\n]+")
_COMMENT: Final = re.compile(r"[ \t]*(?P<comment>#[^\n]*)?")
_BLANK: Final = re.compile(r"[ \t]*")
_BETWEEN: Final = re.compile(r"[ \t,]*")
_EQUALS: Final = re.compile(r"=[ \t]*")
_PLACE: Final = re.compile(r"(?P<what>.*) \(at line (?P<line>\d+), column (?P<column>\d+)\)", re.DOTALL)


def parse_toml(data: bytes, file: str) -> Table:
    """The tree of a TOML 1.0 document; raises `BadDocument` with line and column."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(errors="replace")
        place = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise BadDocument(file, *place, "is not UTF-8", "Save it as UTF-8.") from None
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _not_toml(error, text, file) from None
    except RecursionError:
        raise BadDocument(file, 1, 1, "is nested too deeply") from None
    return _Cutter(text, file).document()


def _not_toml(error: tomllib.TOMLDecodeError, text: str, file: str) -> BadDocument:
    found = _PLACE.fullmatch(str(error))
    what = found["what"] if found else str(error).removesuffix(" (at end of document)")
    place = (int(found["line"]), int(found["column"])) if found else (text.count("\n") + 1, 1)
    return BadDocument(file, *place, f"is not TOML: {what}", "Correct the syntax here; nothing was changed.")


class _Cutter:
    """Cuts a text that is known to be TOML into nodes."""

    def __init__(self, text: str, file: str) -> None:
        self.text, self.file, self.at = text, file, 0
        self.lines = [0, *(found.end() for found in re.finditer("\n", text))]
        self.root = Table(explicit=True)

    def document(self) -> Table:
        """The whole text."""
        table, path = self.root, Path()
        pending: list[str] = []
        while self.at < len(self.text):
            self.at = self._match(_BLANK).end()
            sign = self.text[self.at : self.at + 1]
            if sign in ("", "\n", "#"):
                pending.append(self._comment())
            elif sign == "[":
                table, path = self._header(pending)
                pending = []
            else:
                self._pair(table, path, pending)
                pending = []
        self.root.end += pending
        return self.root

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise BadDocument(self.file, *self._place(), "is not TOML that can be read here")
        return found

    def _place(self) -> tuple[int, int]:
        line = bisect_right(self.lines, self.at)
        return line, self.at - self.lines[line - 1] + 1

    def _origin(self, path: Path) -> Origin:
        if len(path) > _MOST_DEPTH:
            raise BadDocument(self.file, *self._place(), "is nested too deeply")
        return Origin(self.file, *self._place(), path)

    def _comment(self) -> str:
        """The comment at the end of a line, and past the line."""
        found = self._match(_COMMENT)
        self.at = found.end() + 1
        return (found["comment"] or "").rstrip()

    def _key(self) -> tuple[Path, list[str]]:
        """A key with dots: its parts, and how each was spelled."""
        parts, spelled = [], []
        while True:
            found = self._match(_PART)
            self.at = found.end()
            raw = found["raw"]
            spelled.append(raw)
            parts.append(raw if raw[0] not in "\"'" else next(iter(tomllib.loads(f"{raw}=0"))))
            if len(parts) > _MOST_DEPTH:
                raise BadDocument(self.file, *self._place(), "is nested too deeply")
            if self.text[self.at : self.at + 1] != ".":
                return tuple(parts), spelled
            self.at += 1

    def _header(self, pending: list[str]) -> tuple[Table, Path]:
        double = self.text.startswith("[[", self.at)
        origin = self._origin(())
        self.at += 1 + double
        path, spelled = self._key()
        self.at += 1 + double
        place = Origin(origin.file, origin.line, origin.column, path)
        above = self._descend(self.root, path[:-1], spelled, place)
        node = above.entries.setdefault(path[-1], Node(path[-1], Rows() if double else Table(), spelled=spelled[-1]))
        if double:
            node.origins, node.place = node.origins or (place,), node.place or place
            node.value.append(Node("", Table(explicit=True)))
            node = node.value[-1]
        node.place, node.indent = node.place or place, origin.column - 1
        node.before += pending
        node.after = self._comment()
        node.value.explicit = True
        if not double and not node.value.entries:
            node.origins = (place,)
        return node.value, path

    def _descend(self, table: Table, path: Path, spelled: list[str], place: Origin) -> Table:
        """The table at `path` below `table`, made where it is not there."""
        for part, raw in zip(path, spelled, strict=False):
            node = table.entries.setdefault(part, Node(part, Table(), spelled=raw, place=place))
            if isinstance(node.value, Rows):
                node = node.value[-1]
            node.origins = ()
            table = node.value
        return table

    def _pair(self, table: Table, at: Path, pending: list[str]) -> None:
        start = self.at
        path, spelled = self._key()
        self.at, end = start, self.at
        origin = self._origin((*at, *path))
        self.at = self._match_at(_EQUALS, end).end()
        above = self._descend(table, path[:-1], spelled, origin)
        node = self._value(origin, spelled[-1])
        node.before, node.indent = pending, origin.column - 1
        node.after = self._comment()
        above.entries[path[-1]] = node
        self._holds(table, at)

    def _holds(self, table: Table, at: Path) -> None:
        """A table with keys is no leaf."""
        above: Table | None = self.root
        for part in at:
            node = above.entries[part] if above is not None else None
            if node is None or isinstance(node.value, Rows):
                return
            node.origins, above = (), node.table

    def _value(self, origin: Origin, spelled: str) -> Node:
        key, start = origin.path[-1], self.at
        if self.text[self.at] == "{":
            return Node(key, self._inline(origin), spelled=spelled, origins=(), place=origin)
        self._skip()
        raw = self.text[start : self.at]
        value = _value_of(raw)
        return Node(key, value, raw=raw, spelled=spelled, origins=(origin,), place=origin)

    def _inline(self, above: Origin) -> Table:
        table = Table(inline=True)
        self.at += 1
        while True:
            self.at = self._match(_BETWEEN).end()
            if self.text[self.at] == "}":
                self.at += 1
                return table
            start = self.at
            path, spelled = self._key()
            end, self.at = self.at, start
            origin = self._origin((*above.path, *path))
            self.at = self._match_at(_EQUALS, end).end()
            inner = self._descend(table, path[:-1], spelled, origin)
            inner.inline = True
            inner.entries[path[-1]] = self._value(origin, spelled[-1])

    def _match_at(self, pattern: re.Pattern[str], at: int) -> re.Match[str]:
        self.at = at
        return self._match(pattern)

    def _skip(self) -> None:
        """Past one value: a string, something in brackets, or a plain word (without the blanks after it)."""
        if found := _STRING.match(self.text, self.at):
            self.at = found.end()
        elif self.text[self.at] in "[{":
            self._skip_brackets()
        else:
            found = self._match(_PLAIN)
            self.at += len(found[0].rstrip())

    def _skip_brackets(self) -> None:
        depth = 0
        while True:
            sign = self.text[self.at]
            if found := _STRING.match(self.text, self.at):
                self.at = found.end()
                continue
            if sign == "#":
                self.at = self.text.find("\n", self.at)
                continue
            depth += (sign in "[{") - (sign in "]}")
            self.at += 1
            if depth == 0:
                return


def _value_of(raw: str) -> Any:
    """What a value means; most are plain enough to be read here, and tomllib is dear."""
    if raw in ("true", "false"):
        return raw == "true"
    if raw.isdecimal() and raw.isascii():
        return int(raw)
    if raw[0] in "\"'" and raw[:3] not in ('"""', "'''") and "\\" not in raw:
        return raw[1:-1]
    return tomllib.loads(f"x={raw}")["x"]


# ------------------------------------------------------------------------------------------------------------ writing


def render_toml(root: Table) -> bytes:
    """The document of a tree; a document that was indented stays so."""
    lines: list[str] = []
    _table(root, (), lines)
    while lines and not lines[0]:
        del lines[0]
    return "".join(f"{line}\n" for line in lines).encode()


def settle(root: Table, style: Style) -> None:
    """Let the tree be the one that its own text gives: keys before tables, each comment with what comes after it, and
    what is new written in the style that the text had."""
    _dress(root, 0, style)
    end, root.end = root.end, []
    root.end = _settle(root, []) + end
    first = next(iter(root.entries.values()), None)
    while first is not None and first.before and not first.before[0]:
        del first.before[0]


def _settle(table: Table, pending: list[str]) -> list[str]:
    """Hand `pending` comments to the first thing that is written from here on; what is left over is given back."""
    pairs = [node for node in table.entries.values() if _is_pair(node)]
    tables = [node for node in table.entries.values() if not _is_pair(node)]
    table.entries = {node.key: node for node in [*pairs, *tables]}
    for node in pairs:
        node.before, pending = pending + node.before, []
    pending, table.end = pending + table.end, []
    for node in tables:
        for row in node.value if isinstance(node.value, Rows) else [node]:
            if row is not node or _has_header(row):
                row.value.explicit, row.before, pending = True, pending + row.before, []
            pending = _settle(row.value, pending)
    return pending


def _has_header(node: Node) -> bool:
    table: Table = node.value
    bare = not table.entries or any(map(_is_pair, table.entries.values())) or table.end
    return bool(bare or table.explicit or node.before or node.after)


class Style(NamedTuple):
    """How a document is written: columns from a header to its keys, and to the headers below it; an empty line before
    headers."""

    keys: int
    headers: int
    spaced: bool

    @classmethod
    def of(cls, root: Table) -> Style:
        """The style of what people wrote in it."""
        keys, headers, spaced = {0}, {0}, False
        for above, node in _written(root, None):
            if above is not None and above.indent >= 0:
                (keys if _is_pair(node) else headers).add(node.indent - above.indent)
            spaced = spaced or (not _is_pair(node) and "" in node.before)
        return cls(max(keys), max(headers), spaced)


def _written(table: Table, above: Node | None) -> Iterator[tuple[Node | None, Node]]:
    """All nodes that somebody wrote, each with the one above it."""
    for node in table.entries.values():
        if node.indent >= 0:
            yield above, node
        if node.table is not None and not node.table.inline:
            yield from _written(node.table, node)


def _dress(table: Table, indent: int, style: Style, at_top: bool = True) -> None:
    """Indent what is new as what stands beside it, or by the style."""
    nodes = list(table.entries.values())
    for pairs, step in ((True, style.keys), (False, style.headers)):
        mine = [node for node in nodes if _is_pair(node) is pairs]
        like = next((node.indent for node in mine if node.indent >= 0), indent if at_top else indent + step)
        for node in mine:
            new = node.indent < 0
            node.indent = like if new else node.indent
            if new and not pairs and style.spaced and not isinstance(node.value, Rows) and _has_header(node):
                node.before = node.before if "" in node.before else ["", *node.before]
            if node.table is not None and not pairs:
                _dress(node.table, node.indent, style, at_top=False)


def _table(table: Table, at: tuple[str, ...], lines: list[str], indent: str = "") -> None:
    for node in table.entries.values():
        if _is_pair(node):
            own = " " * node.indent if node.indent > 0 else ""
            lines += _above(node.before, own)
            after = f" {node.after}" if node.after else ""
            lines.append(f"{own}{_spelled(node)} = {value_text(node)}{after}")
    lines += _above(table.end, indent) if at else []
    for node in table.entries.values():
        if isinstance(node.value, Rows):
            for row in node.value:
                _header(row, (*at, _spelled(node)), lines, "[[{}]]")
        elif not _is_pair(node):
            _header(node, (*at, _spelled(node)), lines, "[{}]")
    lines += [] if at else table.end


def _header(node: Node, at: tuple[str, ...], lines: list[str], form: str) -> None:
    own = " " * node.indent if node.indent > 0 else ""
    if form != "[{}]" or _has_header(node):
        lines += _above(node.before, own)
        lines.append(own + form.format(".".join(at)) + (f" {node.after}" if node.after else ""))
    _table(node.value, at, lines, own)


def _above(before: list[str], indent: str) -> list[str]:
    return [f"{indent}{line}" if line else "" for line in before]


def _is_pair(node: Node) -> bool:
    return not isinstance(node.value, Rows) and (node.table is None or node.table.inline)


def _spelled(node: Node) -> str:
    return node.spelled or spell_key(node.key)


def spell_key(key: str) -> str:
    """A key bare where it may be, else in quotes."""
    return key if _BARE.fullmatch(key) else text_of(key)


def value_text(node: Node) -> str:
    """A value as TOML: as it was read, when it was read as TOML and is the same still."""
    if node.table is not None:
        inner = ", ".join(f"{_spelled(n)} = {value_text(n)}" for n in node.table.entries.values())
        return f"{{ {inner} }}" if inner else "{}"
    return node.raw or toml_value(node.value)


def toml_value(value: Any) -> str:
    """A scalar, a list or a dict as TOML on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return text_of(value)
    if isinstance(value, list):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{spell_key(key)} = {toml_value(one)}" for key, one in value.items()) + " }"
    return value.isoformat() if hasattr(value, "isoformat") else repr(value)


_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}


def text_of(text: str) -> str:
    """A basic string of TOML."""
    return '"' + "".join(_ESCAPES.get(c) or (f"\\u{ord(c):04x}" if c < " " or c == "\x7f" else c) for c in text) + '"'
