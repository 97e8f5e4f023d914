"""A document from bytes to bytes: read, brought from version to version, written, with a word about each key.

Rules of this file: nothing is read or written but what is given and returned. A document that is at its target already
comes out as it was, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import ModuleType
from typing import Final, Literal

from core.values import dataclass
from migrations.config import v1_to_v2, v2_to_v3, v3_to_v4
from migrations.config.known import check_types, tell_defaults
from migrations.config.plugins import check_names
from migrations.config.toml_text import Style, parse_toml, render_toml, settle
from migrations.config.tree import BadDocument, Node, Origin, Table, find
from migrations.config.work import LATEST, Entry, Outcome, Settings, Work
from migrations.config.yaml_writing import render_yaml

STEPS: Final[Mapping[int, ModuleType]] = {1: v1_to_v2, 2: v2_to_v3, 3: v3_to_v4}
OUR_VERSION: Final = 2
Format = Literal["toml", "yaml"]
OUR_KEYS: Final = frozenset(
    {"node", "sources", "transfer", "snapshots", "runtimes", "defaultRuntime", "network", "telemetry", "gc", "policy"}
)


@dataclass(frozen=True, slots=True)
class Document:
    """A file that was read: its work, its bytes, how it is written."""

    work: Work
    data: bytes
    format: Format = "toml"


@dataclass(frozen=True, slots=True)
class Result:
    """What came out: the new text, the report, files beside it (by path below the folder), which of those are
    secret."""

    text: bytes
    entries: tuple[Entry, ...]
    tree: Table = field(default_factory=Table)
    format: Format = "toml"
    files: Mapping[str, bytes] = field(default_factory=dict)
    private: frozenset[str] = frozenset()

    @property
    def dropped(self) -> bool:
        """Whether anything was dropped."""
        return any(entry.outcome is Outcome.DROPPED for entry in self.entries)


def format_of(file: str) -> Format:
    """By the file's name: YAML for `.yaml`, `.yml` and `.json`, else TOML."""
    return "yaml" if file.endswith((".yaml", ".yml", ".json")) else "toml"


def parse(data: bytes, file: str, format: Format) -> Table:
    """The tree of a document; raises `BadDocument`."""
    if format == "toml":
        return parse_toml(data, file)
    from migrations.config.yaml_text import parse_yaml

    return parse_yaml(data, file)


def render(root: Table, format: Format) -> bytes:
    """The text of a tree."""
    return render_toml(root) if format == "toml" else render_yaml(root)


def read_containerd(data: bytes, file: str, settings: Settings, format: Format = "toml") -> Document:
    """A document of containerd's, checked; raises `BadDocument` for what cannot be."""
    tree = parse(data, file, format)
    work = Work(tree, _version(tree, file), file, settings)
    check_names(work)
    check_types(work)
    tell_defaults(work)
    return Document(work, data, format)


def _version(tree: Table, file: str) -> int:
    node = find(tree, ("version",))
    if node is None:
        if mine := sorted(OUR_KEYS & tree.entries.keys(), key=list(tree.entries).index):
            place = tree.entries[mine[0]].place or Origin(file, 1, 1, (mine[0],))
            raise place.bad("is a key of reconciler's, but there is no version", "Add version: 2 at the top.")
        return 1
    place = node.place or Origin(file, 1, 1, ("version",))
    if isinstance(node.value, bool) or not isinstance(node.value, int) or node.value < 0:
        raise place.bad("must be a number")
    if node.value > LATEST:
        raise place.bad(f"is {node.value}, from the future: 1 to {LATEST} are known", "Use a newer reconciler.")
    return max(node.value, 1)


def read_ours(data: bytes, file: str, settings: Settings, format: Format) -> Document:
    """A document of ours, of version 1 (containerd's first layout) or 2; raises `BadDocument` for what cannot be."""
    tree = parse(data, file, format)
    version = find(tree, ("version",))
    strange = [node for key, node in tree.entries.items() if key not in OUR_KEYS | {"version", "root", "state"}]
    newer = version is not None and version.value not in (0, 1, None)
    if newer and version is not None and version.place is not None:
        if strange and strange[0].place is not None and version.value in STEPS.keys() | {LATEST}:
            advice = "Add --from containerd if this is containerd's configuration."
            raise strange[0].place.bad("is no key of our configuration", advice)
        if version.value != OUR_VERSION or isinstance(version.value, bool | float):
            raise version.place.bad(f"must be 1 or {OUR_VERSION}: that is what is known", "Use a newer reconciler.")
        return Document(Work(tree, OUR_VERSION, file, settings), data, format)
    for key in tree.entries if version is not None else ():
        if key in OUR_KEYS and (place := tree.entries[key].place) is not None:
            raise place.bad("is a key of version 2, in a file of version 1", "Write version: 2.")
    return read_containerd(data, file, settings, format)


def ours_to_ours(document: Document) -> Result:
    """Our configuration of version 1 or 2 as version 2, written as it was."""
    if "plugins" in document.work.tree.entries or document.work.version != OUR_VERSION:
        return to_ours(document, document.format)
    return _result(document.work, document.data, f"version {OUR_VERSION}", document.format)


def step_up(work: Work, target: int) -> None:
    """Bring containerd's document to version `target`; raises `BadDocument` for one that is beyond it."""
    if work.version > target:
        raise BadDocument(work.file, 0, 0, f"has version {work.version}, and there is no way back to {target}")
    began = work.version
    while work.version < target:
        style = Style.of(work.tree)
        STEPS[work.version].step(work)
        work.version += 1
        _set_version(work, began)
        settle(work.tree, style)


def _set_version(work: Work, began: int) -> None:
    node = work.get("version")
    if node is not None:
        node.set(work.version)
        for origin in node.origins:
            work.notes.pop(origin, None)
        work.note(node, Outcome.TRANSLATED, f"{began} → {work.version}")
        return
    first = next(iter(work.tree.entries.values()), None)
    before = first.before if first is not None else []
    cut = before.index("") + 1 if "" in before else len(before)  # what a file begins with is about the file
    node = Node("version", work.version, before[:cut])
    if first is not None:
        first.before = before[cut:]
    work.tree.entries = {"version": node, **work.tree.entries}


def to_containerd(document: Document, target: int) -> Result:
    """The document at containerd's version `target`."""
    work, began = document.work, document.work.version
    step_up(work, target)
    text = document.data if began == target else render(work.tree, document.format)
    return _result(work, text, f"version {target}", document.format)


def to_ours(document: Document, format: Format = "yaml") -> Result:
    """The document as our configuration of version 2."""
    from migrations.config import to_reconciler

    work = document.work
    step_up(work, LATEST)
    to_reconciler.step(work)
    return _result(work, render(work.tree, format), "ours", format)


def _result(work: Work, text: bytes, version: str, format: Format) -> Result:
    files = {name: content.encode() for name, content in work.files.items()}
    return Result(text, tuple(work.entries(version)), work.tree, format, files, frozenset(work.private))


def finished(document: Document, version: str) -> Result:
    """A document whose steps are done, as it is."""
    return _result(document.work, render(document.work.tree, document.format), version, document.format)
