"""The work of `reconciler convert`: a file in, manifests and a report out.

Rules of this file: what comes out is read by our own loader before anything is printed, so that nothing is printed that
cannot be applied. Secrets are not shown on a terminal.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from core.errors import Invalid
from core.fsio import read_if_there
from migrations.manifests import compose, containers, pod
from migrations.manifests.given import Given
from migrations.manifests.making import Result, Settings
from reconciler.cli.accounts import as_json, as_table
from reconciler.cli.terminal import complain_in_words, printable, tell
from reconciler.model.kinds.later import LATER_FIELDS, LATER_VALUES
from reconciler.sources.documents import read_manifest
from reconciler.sources.faults import Fault
from reconciler.sources.files import STDIN, ManifestFile, gather
from reconciler.sources.manifests import MOST_BYTES, dump, read_documents
from reconciler.sources.nodes import Node
from reconciler.sources.nodes import Path as NodePath
from reconciler.sources.substitution import Variables

WAYS: Final[Mapping[str, Callable[[Sequence[Given], Settings], Result]]] = {
    "pod": pod.convert,
    "compose": compose.convert,
    "containerd-labels": containers.convert,
}
_NEXT_OBJECT: Final = re.compile(rb"^\{", re.MULTILINE)
_ENV_LINE: Final = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")
_MASK: Final = "***"
MOST_TOLD: Final = 20
"""So many faults are told at once."""


def convert_file(name: str, source: str, report: str, *, strict: bool) -> int:
    """Do it, tell of each key, and give the exit code. Raises `Invalid` and the errors of reading."""
    given = _source(name)
    folder = os.path.dirname(os.path.abspath(name)) if name != STDIN else os.getcwd()
    documents = documents_of(given, source)
    result = WAYS[source](documents, _settings(folder, source))
    text = dump(result.documents)
    if faults := loadable(text, folder, given.shown):
        return _refuse(faults, result, given.shown)
    said = list(result.told)
    if any(document["kind"] == "Secret" for document in result.documents) and sys.stdout.isatty():
        text = dump([_masked(document) for document in result.documents])
        said.append("secrets are shown as ***: write to a file (> FILE), and they are there")
    sys.stdout.write(text)
    if strict and result.dropped:
        said.append("something was dropped, and --strict was asked for")
    if report == "json":
        tell(as_json(result.entries).decode().rstrip())
    else:
        tell("\n".join([*as_table(result.entries), *(printable(line) for line in said)]))
    return 1 if strict and result.dropped else 0


def _source(name: str) -> ManifestFile:
    if name != STDIN and os.path.isdir(name):
        raise Invalid(f"{name} is a folder", advice="Give one file.")
    (found,) = gather([name])
    if isinstance(found, Fault):
        raise Invalid(str(found), advice="Correct the path; nothing was done.")
    return found


def documents_of(source: ManifestFile, way: str) -> list[Given]:
    """The documents of a file, aliases written out. Raises `Invalid` with the place of what is wrong."""
    data = source.data
    if way == "containerd-labels" and not data.lstrip().startswith((b"[", b"-")):
        first = data.find(b"{")  # objects one after the other, as ctr prints them, are documents
        data = data[: first + 1] + _NEXT_OBJECT.sub(b"--- {", data[first + 1 :])
    documents, faults = read_documents(data, source.shown, aliases=True)
    faults = [*faults, *(fault for document in documents for fault in document.faults)]
    if faults:
        raise Invalid(
            "\n".join(str(fault) for fault in faults[:MOST_TOLD]), advice="Correct the file; nothing was done."
        )
    if not documents:
        raise Invalid(f"{source.shown} holds no document", advice="Give a file that holds one.")
    return [given_of(document.root, source.shown) for document in documents]


def given_of(node: Node, file: str, path: NodePath = ()) -> Given:
    """A value as conversions take it; a key's place is where its key stands."""
    line, column = node.key or node.mark
    given = Given(file, line, column, path)
    if isinstance(node.children, dict):
        given.fields = {key: given_of(child, file, (*path, key)) for key, child in node.children.items()}
    elif node.children is not None:
        given.items = [given_of(child, file, (*path, i)) for i, child in enumerate(node.children)]
    else:
        given.value, given.text = node.value, node.text if node.text is not None else str(node.value)
    return given


def _settings(folder: str, way: str) -> Settings:
    variables = {**_env_file(folder), **os.environ} if way == "compose" else {}
    return Settings(folder, lambda path: read_if_there(Path(folder, path), MOST_BYTES), variables, later())


def later() -> frozenset[str]:
    """What this version knows and does not do yet, as `Kind.path`."""
    tables = (LATER_FIELDS, LATER_VALUES)
    return frozenset(f"{kind}.{path}" for table in tables for kind in table for path in table[kind])


def _env_file(folder: str) -> dict[str, str]:
    """The variables of `.env`, as compose reads them."""
    data = read_if_there(Path(folder, ".env"), MOST_BYTES)
    found = {}
    for line in (data or b"").decode(errors="replace").splitlines():
        if (one := _ENV_LINE.fullmatch(line.strip())) is not None:
            found[one[1]] = one[2].strip("'\"")
    return found


def loadable(text: str, folder: str, shown: str) -> list[Fault]:
    """What our loader finds wrong with the manifests in `text`, as if they lay in `folder`."""
    source = ManifestFile(shown, text.encode(), folder, "converted.yaml")
    documents, faults = read_documents(source.data, shown)
    readings = [read_manifest(document, source, Variables("node")) for document in documents]
    told = [
        Fault(shown, 0, 0, f"{reading.key} {fault.path}", fault.message, fault.advice)
        for reading in readings
        for fault in reading.faults
    ]
    return [*told, *faults]


def _refuse(faults: Sequence[Fault], result: Result, file: str) -> int:
    """Tell each fault where it came from."""
    for fault in faults:
        key, _, path = fault.path.partition(" ")
        begins = f"{key} {path.removeprefix('spec.').split('.')[0].split('[')[0]}"
        lines = [entry.line for entry in result.entries if entry.to.startswith(begins)]
        place = f"{file}:{lines[0]}" if lines else file
        complain_in_words(f"invalid: {place}: {printable(fault.path)}: {printable(fault.message)}", [fault.advice])
    return 1


def _masked(document: Mapping[str, Any]) -> dict[str, Any]:
    if document["kind"] != "Secret":
        return dict(document)
    return {**document, "spec": {part: dict.fromkeys(keys, _MASK) for part, keys in document["spec"].items()}}
