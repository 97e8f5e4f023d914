"""A revision, read and checked as a whole: what it wants, what it names beside that, or all that is wrong with it.

Rules of this file: loaded with the first revision that is read, since YAML's reader is large. What a Source that comes
out of a Source may not be is told here: itself, or a look at this node's own files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from core.values import dataclass
from reconciler.model.identity import Key, Kind
from reconciler.sources.documents import Manifest
from reconciler.sources.faults import Fault
from reconciler.sources.loading import load_tree
from reconciler.sources.nodes import Path
from reconciler.sources.parsed import Parsed
from reconciler.sources.references import check_privileged, check_references, references
from reconciler.sources.revisions import Fetcher
from reconciler.sources.substitution import Variables
from reconciler.store.functions import Wanted


@dataclass(frozen=True, slots=True)
class Checked:
    """What a revision came to. `needs`: what its objects name and it does not hold, each with its place."""

    wanted: tuple[Wanted, ...]
    faults: tuple[Fault, ...] = ()
    needs: tuple[tuple[Key, str], ...] = ()


class RevisionReader:
    """Reads the revisions of one Source, and remembers what files came to. `allow_local`: a Source in it may name files
    and folders of the node.
    """

    def __init__(self, source: Key, *, allow_local: bool) -> None:
        self._source = source
        self._allow_local = allow_local
        self._parsed = Parsed()

    def read(
        self, fetcher: Fetcher, revision: str, inside: str, variables: Variables, *, allow_privileged: bool = False
    ) -> Checked:
        """Read and check all manifests below `inside`; raises what the fetcher raises."""
        with fetcher.tree(revision) as tree:
            loaded = load_tree(tree, inside, variables, self._parsed)
        rules = (fault for one in loaded.manifests for fault in self._rules(one))
        denied = () if allow_privileged else check_privileged(loaded)
        faults = sorted({*loaded.faults, *check_references(loaded, lambda key: True), *rules, *denied})
        needs = [
            (key, _place(one, path))
            for one in loaded.manifests
            for path, key in references(one.key.kind, one.spec)
            if key not in loaded.keys
        ]
        return Checked(tuple(_wanted(one, revision) for one in loaded.manifests), tuple(faults), tuple(needs))

    def _rules(self, manifest: Manifest) -> Iterator[Fault]:
        if manifest.key.kind is not Kind.SOURCE:
            return
        if manifest.key == self._source:
            message = f"{self._source} cannot hold itself: a commit could move or remove it for good"
            yield manifest.fault(("metadata", "name"), message, "apply it on the node, or keep it in another Source")
        if self._allow_local:
            return
        advice = "apply such a Source on the node, or set sources.git.allowFile in the configuration"
        if "folder" in manifest.spec:
            yield manifest.fault(("spec", "folder"), "is a folder of the node, out of a Source", advice)
        elif manifest.spec["git"]["url"].startswith("file:"):
            yield manifest.fault(("spec", "git", "url"), "is a file of the node, out of a Source", advice)


def kept_again(wanted: Iterable[Wanted]) -> Checked:
    """What was applied once, and is to be so again: it was checked then."""
    every = tuple(wanted)
    keys = {want.key for want in every}
    named = ((key, str(want.origin)) for want in every for _, key in references(want.key.kind, want.spec))
    return Checked(every, needs=tuple((key, place) for key, place in named if key not in keys))


def _place(manifest: Manifest, path: Path) -> str:
    line, column = manifest.node.place(path)
    return f"{manifest.origin.file}:{line}:{column}"


def _wanted(manifest: Manifest, revision: str) -> Wanted:
    origin = replace(manifest.origin, revision=revision)
    return Wanted(manifest.key, manifest.spec, manifest.labels, manifest.annotations, origin)
