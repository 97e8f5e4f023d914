"""Reads the CDI specifications of the node: JSON and YAML, in folders of which later ones win."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from core.errors import Invalid
from core.runtime.cdi import Edits, Specification, checked, edits

_MOST: Final = 1 << 20
_ENDINGS: Final = (".json", ".yaml", ".yml")


def edits_of(names: Iterable[str], folders: Sequence[Path]) -> Edits:
    """What the CDI devices of these names bring; nothing is read without a name. Raises what is wrong."""
    wanted = list(names)
    return edits(wanted, _specifications(folders)) if wanted else Edits()


def _specifications(folders: Sequence[Path]) -> list[Specification]:
    from reconciler.sources.manifests import read_documents  # YAML's reader: not for who names no such device

    found: list[Specification] = []
    for priority, folder in enumerate(folders):
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        for path in (one for one in files if one.suffix in _ENDINGS and one.is_file()):
            with open(path, "rb") as source:
                documents, faults = read_documents(source.read(_MOST + 1), str(path))
            if faults or len(documents) != 1:
                raise Invalid(f"{path} is not a CDI specification: {faults[0] if faults else 'not one document'}")
            found.append(Specification(str(path), priority, checked(documents[0].root.value, str(path))))
    return found
