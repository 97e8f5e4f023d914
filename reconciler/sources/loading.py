"""From paths to manifests: all of them, or all that is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from core.values import dataclass
from reconciler.model.identity import Key
from reconciler.sources.documents import Manifest
from reconciler.sources.faults import Fault
from reconciler.sources.files import ManifestFile, gather, gather_tree
from reconciler.sources.parsed import Parsed, ReadFile, read_file
from reconciler.sources.revisions import Tree
from reconciler.sources.substitution import Variables


@dataclass(frozen=True, slots=True)
class Loaded:
    """What paths held, in their order. Nothing may be applied while there are `faults`.

    `keys`: every object that was named, those of faulty documents too: a reference to one of these is not a reference
    to nothing.
    """

    manifests: tuple[Manifest, ...]
    faults: tuple[Fault, ...]
    keys: frozenset[Key]


def load(paths: Sequence[str], variables: Variables) -> Loaded:
    """Read all manifests at `paths` (files, folders, `-` for stdin). Never raises for what files hold."""
    return _load(gather(paths), variables)


def load_tree(tree: Tree, inside: str, variables: Variables, parsed: Parsed | None = None) -> Loaded:
    """Read all manifests of `tree` below `inside` ("": all of it). Never raises for what files hold.

    `parsed` spares what it has read before.
    """
    return _load(gather_tree(tree, inside), variables, read_file if parsed is None else parsed.read)


def _load(files: Iterable[ManifestFile | Fault], variables: Variables, read: ReadFile = read_file) -> Loaded:
    loading = _Loading(variables, read)
    for found in files:
        if isinstance(found, Fault):
            loading.faults.append(found)
        else:
            loading.read(found)
    return Loaded(tuple(loading.manifests), tuple(loading.faults), frozenset(loading.first))


class _Loading:
    """What was read so far; `first` says where each object was defined first."""

    def __init__(self, variables: Variables, read: ReadFile) -> None:
        self.variables = variables
        self.read_file = read
        self.manifests: list[Manifest] = []
        self.faults: list[Fault] = []
        self.first: dict[Key, str] = {}

    def read(self, source: ManifestFile) -> None:
        """Take in one file."""
        found = self.read_file(source, self.variables)
        for (line, column), reading in found.readings:
            self.faults.extend(reading.faults)
            place = f"{source.shown}:{line}"
            if reading.key is not None and (first := self.first.setdefault(reading.key, place)) != place:
                message = f"{reading.key} is defined in {first} too"
                self.faults.append(Fault(source.shown, line, column, "", message, "keep one of the two"))
            elif reading.manifest is not None:
                self.manifests.append(reading.manifest)
        self.faults.extend(found.faults)
