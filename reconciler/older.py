"""A configuration of version 1 (containerd's first layout), brought to version 2 in memory when an agent is given one.

Rules of this file: the file stays as it is; what became of each key is told with its line. What the new layout keeps in
files beside it (hosts.toml) is staged in the state folder by whoever becomes the engine. A login is never staged: it
becomes a Secret, which a person applies.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from core.fsio import make_private, publish, read_if_there, staging, write_atomic
from core.values import dataclass
from migrations.config import migrate
from migrations.config.tree import BadDocument, Origin, Table, leaves, spell
from migrations.config.work import Entry, Outcome, Settings
from reconciler.sources.faults import Fault
from reconciler.sources.manifests import MOST_BYTES

CERTS: Final = "certs.d"


@dataclass(frozen=True, slots=True)
class Brought:
    """`text`: the same as version 2, in YAML; `lines`: where each key of it was said; `steps`: what became of each key
    that was written; `beside`: what belongs beside it, by path.
    """

    text: bytes
    lines: Mapping[str, int]
    steps: tuple[str, ...]
    beside: Mapping[str, bytes]


def bring(data: bytes, file: str) -> Brought | Fault:
    """The migrated document, or why it cannot be one."""
    format = migrate.format_of(file) if file.endswith(".toml") else "yaml"
    settings = Settings(os.path.dirname(os.path.realpath(file)), True, _hosts)
    try:
        document = migrate.read_ours(data, file, settings, format)
        if document.work.version != migrate.OUR_VERSION:
            _no_key_of_ours(document.work.tree, file)
        result = migrate.to_ours(document) if document.work.version != migrate.OUR_VERSION else None
    except BadDocument as error:
        place = f"{file}:{error.line}:{error.column}: " if error.line else f"{file}: "
        return Fault(file, error.line, error.column, "", error.message.removeprefix(place), error.hint())
    if result is None:  # a TOML file of version 2: only how it is written is another matter
        tree = document.work.tree
        lines = {spell(path): node.origins[0].line for path, node in leaves(tree) if node.origins}
        return Brought(migrate.render(tree, "yaml"), lines, (), {})
    lines = {to: entry.line for entry in result.entries for to in entry.to.split(", ") if to}
    beside = {name: content for name, content in result.files.items() if name not in result.private}
    return Brought(result.text, lines, tuple(_steps(result.entries)), beside)


def _no_key_of_ours(tree: Table, file: str) -> None:
    """Raise `BadDocument` for a file that says version 1 and has keys of version 2: it would all be dropped."""
    for key, node in tree.entries.items():
        if key in migrate.OUR_KEYS:
            place = node.place or Origin(file, 1, 1, (key,))
            raise place.bad("is a key of version 2, in a file of version 1", "Write version: 2.")


def _hosts(path: str) -> bytes | None:
    return read_if_there(Path(path), MOST_BYTES)


def _steps(entries: tuple[Entry, ...]) -> Iterator[str]:
    for entry in entries:
        to = f" to {entry.to}" if entry.to and entry.to != entry.key else ""
        why = f": {entry.why}" if entry.why else ""
        yield f"{entry.file}:{entry.line}: {entry.key} is {_WORDS[entry.outcome]}{to}{why}"


_WORDS: Final[Mapping[Outcome, str]] = {
    Outcome.MOVED: "moved",
    Outcome.TRANSLATED: "translated",
    Outcome.DEFAULT: "the default",
    Outcome.INERT: "without effect",
    Outcome.DROPPED: "dropped",
}


def stage(beside: Mapping[str, bytes], state: Path) -> Path:
    """Have these files in a folder of their own below `state`, named by what is in them; raises `OSError`."""
    parent = make_private(state)
    digest = hashlib.sha256(repr(sorted(beside.items())).encode()).hexdigest()[:12]
    final = parent / f"migrated-{digest}"
    if final.exists():
        return final
    with staging(parent) as work:
        for name, content in beside.items():
            (work / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(work / name, content)
        publish(work, final)
    return final
