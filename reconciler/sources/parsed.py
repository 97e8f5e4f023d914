"""What manifest files came to when they were read before, by the id of their bytes: a new revision costs what changed.

Rules of this file: a file is read anew unless its bytes (by git's blob id), its name and every variable are as they
were. Only what was right is kept, and only what depends on nothing else: not what takes in the content of other files.
Kept small, as pickled bytes in memory; never on disk, where a damaged one could do anything.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from typing import Final, TypeAlias

from core.values import dataclass
from reconciler.model.problems import mapping_at, mappings_in
from reconciler.sources.documents import Reading, read_manifest
from reconciler.sources.faults import Fault
from reconciler.sources.files import ManifestFile
from reconciler.sources.manifests import read_documents
from reconciler.sources.nodes import Mark
from reconciler.sources.substitution import Variables

MOST_KEPT: Final = 4 << 20
"""Bytes, of all that one `Parsed` keeps."""


@dataclass(frozen=True, slots=True)
class FileReading:
    """What one file came to: each document with its place, and the faults of the file as a whole."""

    readings: tuple[tuple[Mark, Reading], ...]
    faults: tuple[Fault, ...]


ReadFile: TypeAlias = Callable[[ManifestFile, Variables], FileReading]


def read_file(source: ManifestFile, variables: Variables) -> FileReading:
    """Read one file. Never raises for what it holds."""
    documents, faults = read_documents(source.data, source.shown)
    readings = [(document.root.mark, read_manifest(document, source, variables)) for document in documents]
    return FileReading(tuple(readings), tuple(faults))


def blob_id(data: bytes) -> str:
    """The id that git gives these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class Parsed:
    """Reads files, and remembers what they came to. It belongs to one Source, and so to one thread at a time."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._kept: dict[tuple[str, str, bytes], bytes] = {}
        self._size = 0

    def read(self, source: ManifestFile, variables: Variables) -> FileReading:
        """As `read_file` does; what comes back may be changed by whoever asked."""
        key = blob_id(source.data), f"{source.shown}\0{source.inside}", _fingerprint(variables)
        if (known := self._kept.pop(key, None)) is not None:
            self._kept[key] = known  # the one used last goes last
            found: FileReading = pickle.loads(known)  # our own bytes, which never left this process
            return found
        reading = read_file(source, variables)
        if _alone(reading):
            self._keep(key, pickle.dumps(reading, pickle.HIGHEST_PROTOCOL))
        return reading

    def _keep(self, key: tuple[str, str, bytes], data: bytes) -> None:
        if len(data) > self._most:
            return
        self._kept[key] = data
        self._size += len(data)
        while self._size > self._most:
            oldest = next(iter(self._kept))
            self._size -= len(self._kept.pop(oldest))


def _fingerprint(variables: Variables) -> bytes:
    """Changes with every variable and every name of one."""
    labels, values = sorted(variables.node_labels.items()), sorted(variables.values.items())
    return hashlib.sha256(repr((variables.node_name, labels, values)).encode("utf-8", "surrogatepass")).digest()


def _alone(reading: FileReading) -> bool:
    """Whether all is right, and nothing but the file's own bytes went into it."""
    if reading.faults:
        return False
    for _, each in reading.readings:
        if each.faults or each.manifest is None:
            return False
        if "archive" in each.manifest.spec:
            return False
        if {"seccompContent", "apparmorContent"} & mapping_at(dict(each.manifest.spec), "security").keys():
            return False
        if any("fileContent" in mount for _, mount in mappings_in(dict(each.manifest.spec), "mounts")):
            return False
    return True
