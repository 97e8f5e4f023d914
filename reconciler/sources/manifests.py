"""The only reader and writer of YAML (and JSON, which is read as YAML).

Rules of this file: text is hostile. It is walked as libyaml's events, one at a time and within limits, so that nothing
deep, large or expanding is ever built (libyaml's own composer ends the process on 30,000 `[`). No anchors, aliases,
merge keys or tags. Values are built from source text by YAML 1.2's core schema, each with its line and column. Nothing
here raises for what a file holds: every fault is a `Fault`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ruamel.yaml import events as ev
from ruamel.yaml.cyaml import CEmitter, CParser  # type: ignore[attr-defined] # from its C module, without stubs
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from reconciler.model.problems import excerpt, quoted, shown
from reconciler.sources.faults import Fault
from reconciler.sources.nodes import Document, Mark, Node
from reconciler.sources.scalars import NotANumber, doubtful, plain, resolve

MOST_BYTES: Final = 1 << 20
MOST_DEPTH: Final = 64
MOST_NODES: Final = 100_000
MOST_FAULTS: Final = 100

_UTF16_OR_32: Final = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_WIDE: Final = 1 << 30


class _Stop(Exception):
    """The rest of the file is not read; `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


def read_documents(data: bytes, file: str, *, aliases: bool = False) -> tuple[list[Document], list[Fault]]:
    """The documents of one file that hold anything, and the faults of the file itself (its encoding, its syntax).

    `aliases`: they and merge keys are written out, within the same limits, for what is no manifest of ours.
    A document's own faults (doubles, aliases, numbers) are in it. After a fault of syntax the rest is not read. Bytes
    are UTF-8, with or without a byte order mark; lines end in LF, CRLF or CR.
    """
    reader = _Reader(file, aliases=aliases)
    try:
        reader.read(_decoded(data, file))
    except _Stop as stop:
        end = stop.fault
    except MarkedYAMLError as error:
        end = _syntax_fault(error, file)
    except ReaderError as error:
        message = f"holds a control character (U+{error.character:04X})"
        end = Fault(file, *_mark_of(data, error.position), "", message, "remove it, or escape it")
    except YAMLError as error:
        end = Fault(file, 1, 1, "", f"is not YAML: {excerpt(error, 200)}", "check its syntax")
    else:
        return reader.documents, []
    return reader.documents, [*reader.unfinished.faults, end]


def _decoded(data: bytes, file: str) -> bytes:
    """`data` when it is UTF-8 of a size that is read, without its byte order mark; raises `_Stop`."""
    if len(data) > MOST_BYTES:
        raise _Stop(Fault(file, 0, 0, "", "is larger than 1 MiB", "split it into several files"))
    if data.startswith(_UTF16_OR_32):
        raise _Stop(Fault(file, 1, 1, "", "is UTF-16 or UTF-32", "save it as UTF-8"))
    try:
        data.decode()
    except UnicodeDecodeError as error:
        mark = _mark_of(data, error.start)
        raise _Stop(
            Fault(file, *mark, "", f"is not UTF-8 (byte 0x{data[error.start]:02x})", "save it as UTF-8")
        ) from None
    return data.removeprefix(b"\xef\xbb\xbf")


def _mark_of(data: bytes, position: int) -> Mark:
    before = data[:position].decode(errors="replace")
    return (before.count("\n") + 1, len(before) - before.rfind("\n"))


def _syntax_fault(error: MarkedYAMLError, file: str) -> Fault:
    mark = error.problem_mark or error.context_mark
    place: Mark = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    problem = excerpt(error.problem, 200) if error.problem else "is not YAML"
    advice = "indent with spaces only" if "tab" in problem else "check indentation, quotes and brackets here and above"
    context = f" {error.context}" if error.context else ""
    return Fault(file, *place, "", f"syntax: {problem}{context}", advice)


def _mark(event: Any) -> Mark:
    start = event.start_mark
    return start.line + 1, start.column + 1


def _is_word(text: str) -> bool:
    """Whether a key is one to every reader, whatever its quotes: most are, and the rest is looked at in detail."""
    return text.isalpha() and plain(text)


def _nothing() -> Document:
    return Document(Node(None, (1, 1)))


class _Reader:
    """Walks the events of one file. What was whole before a fault that ends it stays in `documents`; the faults of the
    document that it was in are in `unfinished`.
    """

    def __init__(self, file: str, *, aliases: bool = False) -> None:
        self.file = file
        self._anchors: dict[str, Node] | None = {} if aliases else None
        self.documents: list[Document] = []
        self.unfinished = _nothing()
        self._path: list[str | int] = []
        self._nodes = 0
        self._faults = 0

    def read(self, data: bytes) -> None:
        """Read all documents; raises `_Stop` and ruamel's errors."""
        self._next = CParser(data).get_event
        while (event := self._next()) is not None:
            if not isinstance(event, ev.DocumentStartEvent):
                continue
            if self._anchors is not None:
                self._anchors = {}
            root = self.unfinished.root = self._node(self._next(), 1)
            if root.value is not None or self.unfinished.faults:
                self.documents.append(self.unfinished)
            self.unfinished = _nothing()

    def _fault(self, mark: Mark, message: str, advice: str) -> None:
        self._faults += 1
        if self._faults > MOST_FAULTS:
            raise self._stop(mark, "too many faults: the rest is not read", "begin with the first")
        self.unfinished.faults.append(Fault(self.file, *mark, shown(tuple(self._path)), message, advice))

    def _stop(self, mark: Mark, message: str, advice: str) -> _Stop:
        return _Stop(Fault(self.file, *mark, "", message, advice))

    def _node(self, event: Any, depth: int) -> Node:
        """The value that begins with `event`, and all of its events."""
        mark = _mark(event)
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise self._stop(mark, f"more than {MOST_NODES} values in a file", "split the file")
        kind = type(event)
        if self._anchors is not None and event.anchor is not None:
            return self._anchored(event, mark, depth)
        if kind is ev.AliasEvent:
            self._fault(mark, f"aliases (*{excerpt(event.anchor)}) are not read", "write the value out")
            return Node(None, mark)
        if event.anchor is not None:
            self._fault(mark, f"anchors (&{excerpt(event.anchor)}) are not read", "remove it, and write values out")
        return self._value(event, mark, depth)

    def _value(self, event: Any, mark: Mark, depth: int) -> Node:
        kind = type(event)
        if event.tag is not None:
            self._fault(mark, f"tags ({excerpt(event.tag)}) are not read", "remove it; quote what is meant as text")
        if kind is ev.ScalarEvent:
            return self._scalar(event, mark)
        if depth > MOST_DEPTH:
            raise self._stop(mark, f"nested deeper than {MOST_DEPTH} levels", "nest less")
        return self._mapping(mark, depth) if kind is ev.MappingStartEvent else self._sequence(mark, depth)

    def _anchored(self, event: Any, mark: Mark, depth: int) -> Node:
        """What has an anchor, remembered; or what an alias stands for, which counts as if it were written out."""
        assert self._anchors is not None
        if type(event) is not ev.AliasEvent:
            node = self._anchors[event.anchor] = self._value(event, mark, depth)
            return node
        if (known := self._anchors.get(event.anchor)) is None:
            self._fault(mark, f"there is no anchor &{excerpt(event.anchor)} before this", "write the value out")
            return Node(None, mark)
        count, height = known.measure()
        self._nodes += count
        if self._nodes > MOST_NODES or depth + height > MOST_DEPTH:
            raise self._stop(mark, "aliases make it too large or too deep", "write less by aliases")
        return Node(known.value, known.mark, known.text, known.children)

    def _scalar(self, event: ev.ScalarEvent, mark: Mark) -> Node:
        text = event.value
        if "\0" in text:
            self._fault(mark, "holds a NUL character", "no name, path or argument can hold one")
        if event.style:
            return Node(text, mark)
        try:
            value = resolve(text)
        except NotANumber as error:
            self._fault(mark, str(error), "write a finite number that fits into 64 bits, or quote it")
            return Node(None, mark, text)
        node = Node(value, mark, text)
        if value is None or doubtful(text):
            self.unfinished.doubtful.append(node)
        return node

    def _sequence(self, mark: Mark, depth: int) -> Node:
        children: list[Node] = []
        while type(event := self._next()) is not ev.SequenceEndEvent:
            self._path.append(len(children))
            children.append(self._node(event, depth + 1))
            self._path.pop()
        return Node([child.value for child in children], mark, None, children)

    def _mapping(self, mark: Mark, depth: int) -> Node:
        children: dict[str, Node] = {}
        merged: list[Node] = []
        while type(event := self._next()) is not ev.MappingEndEvent:
            place = _mark(event)
            if self._anchors is not None and type(event) is ev.ScalarEvent and event.value == "<<" and not event.style:
                merged.append(self._node(self._next(), depth + 1))
                continue
            key = self._key(event, place, depth)
            self._path.append("?" if key is None else key)
            if key in children:
                line = (children[key].key or place)[0]
                self._fault(place, f"stands in line {line} already", "keep one of the two")
            child = self._node(self._next(), depth + 1)
            child.key = place
            if key is not None:
                children.setdefault(key, child)
            self._path.pop()
        for node in merged:
            self._merge(node, children)
        return Node({key: child.value for key, child in children.items()}, mark, None, children)

    def _merge(self, node: Node, children: dict[str, Node]) -> None:
        """Add what a merge key names, where nothing of that key stands."""
        for one in node.children if isinstance(node.children, list) else [node]:
            if not isinstance(one.children, dict):
                self._fault(one.mark, "a merge key (<<) names no mapping", "write the keys out")
                continue
            for key, child in one.children.items():
                children.setdefault(key, child)

    def _key(self, event: Any, mark: Mark, depth: int) -> str | None:
        """The key's text; None after a fault that says why it is none."""
        is_scalar = type(event) is ev.ScalarEvent
        if is_scalar and event.anchor is None and event.tag is None and _is_word(event.value):
            self._nodes += 1
            return str(event.value)
        if not is_scalar:
            self._node(event, depth + 1)
            self._fault(mark, "a key is a list, a mapping or an alias", "write a plain word as key")
            return None
        before = self._faults
        doubts = len(self.unfinished.doubtful)
        node = self._node(event, depth + 1)
        del self.unfinished.doubtful[doubts:]
        if self._faults > before:
            return None
        if not event.style and event.value == "<<":
            self._fault(mark, "merge keys (<<) are not read", "write the keys out")
            return None
        if not event.style and not plain(event.value):
            self._fault(mark, f"the key {excerpt(event.value)} is not text", f"quote it: {quoted(event.value)}")
            return None
        return str(node.value)


def dump(documents: Iterable[Mapping[str, Any]]) -> str:
    """YAML of documents of JSON types, in their order of keys, which `read_documents` reads back as they are."""
    out = io.StringIO()
    emitter = CEmitter(out, allow_unicode=True, width=_WIDE, indent=2)
    emitter.emit(ev.StreamStartEvent())
    for document in documents:
        emitter.emit(ev.DocumentStartEvent(explicit=True))
        _emit(emitter, document)
        emitter.emit(ev.DocumentEndEvent(explicit=False))
    emitter.emit(ev.StreamEndEvent())
    return out.getvalue().removeprefix("---\n")


def _emit(emitter: CEmitter, value: object) -> None:
    if isinstance(value, Mapping):
        emitter.emit(ev.MappingStartEvent(None, None, True, flow_style=not value))
        for key, item in value.items():
            _emit(emitter, str(key))
            _emit(emitter, item)
        emitter.emit(ev.MappingEndEvent())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        emitter.emit(ev.SequenceStartEvent(None, None, True, flow_style=not value))
        for item in value:
            _emit(emitter, item)
        emitter.emit(ev.SequenceEndEvent())
    elif isinstance(value, str):
        style = "|" if "\n" in value else "" if plain(value) else "'"
        emitter.emit(ev.ScalarEvent(None, None, (True, True), value, style=style))
    else:
        words = {"None": "null", "True": "true", "False": "false"}
        emitter.emit(ev.ScalarEvent(None, None, (True, False), words.get(repr(value), repr(value)), style=""))
