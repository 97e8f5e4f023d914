"""Whether unpacked images are what their layers say: each is unpacked once more, aside, and compared.

Rules of this file: only asked for, as it costs a second unpacking and its room; an image at a time, and the room of one
image. Nothing is changed: what is unpacked lies in a staging folder of root, which goes with the command or the next
engine. An image whose blobs are not all right is left out: that is told of the blobs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.digest import Digest
from core.values import dataclass
from reconciler.model.identity import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from core.content.store import ContentStore
    from core.snapshots.driver import FolderSnapshotter
    from core.snapshots.ledger import Line
    from reconciler.cli.context import Node
    from reconciler.model.objects import Object
    from reconciler.store.port import ObjectStore

_MOST: Final = 5
"""Differences told of one snapshot; there may be more."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A committed snapshot that is not what its layer says; `what`: its first differences."""

    driver: str
    chain: str
    what: tuple[str, ...]
    images: tuple[str, ...]


@dataclass(slots=True)
class Unpacked:
    """Compares the snapshots of images, each once, whoever shares it. `tick` is told how many bytes were compared."""

    node: Node
    content: ContentStore
    tick: Callable[[int, str], None]
    seen: set[tuple[str, str]] = field(default_factory=set)
    damaged: list[Damaged] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Names of images that could not be unpacked anew, as a blob of theirs is wrong or missing."""

    def check(self, store: ObjectStore, wrong: Collection[str]) -> None:
        """Look at every image that is unpacked; `wrong`: the blobs not to be relied on. Raises `AgentError`."""
        images = [obj for obj in store.list(Kind.IMAGE) if obj.deleted is None and obj.record.get("chain")]
        for image in images:
            driver, chain = str(image.record["driver"]), str(image.record["chain"])
            if set(image.record.get("blobs", ())) & set(wrong):
                self.skipped.append(image.name)
            elif (driver, chain) not in self.seen:
                root = self.node.paths.snapshots / driver
                self._image(image, lines(root), [one for one in images if one.record["driver"] == driver])

    def _image(self, image: Object, known: Mapping[str, Line], images: Iterable[Object]) -> None:
        from core import fsio
        from core.errors import from_os_error
        from core.snapshots.driver import FILES

        driver = str(image.record["driver"])
        root = self.node.paths.snapshots / driver
        chains = lineage(known, str(image.record["chain"]))
        if not chains:
            return  # the engine unpacks it anew by itself
        try:
            with fsio.staging(self.node.paths.root, "check") as work, self._anew(image.record, work) as scratch:
                for chain in chains:
                    if (driver, chain) not in self.seen:
                        self.seen.add((driver, chain))
                        users = (one.name for one in images if chain in lineage(known, str(one.record["chain"])))
                        folder = root / str(known[chain].id) / FILES
                        self._compare(Damaged(driver, chain, (), tuple(users)), folder, scratch.folder(chain))
        except OSError as error:
            raise from_os_error(error, f"comparing image {image.name}") from error

    def _compare(self, one: Damaged, found: Path, wanted: Path) -> None:
        from core.snapshots.comparing import differences

        try:
            faults = tuple(islice(differences(found, wanted, lambda count: self.tick(count, one.chain)), _MOST))
        except FileNotFoundError:
            if found.is_dir():
                raise
            return  # it was removed meanwhile
        if faults:
            self.damaged.append(Damaged(one.driver, one.chain, faults, one.images))

    @contextlib.contextmanager
    def _anew(self, record: Mapping[str, Any], work: Path) -> Iterator[FolderSnapshotter]:
        """A driver in folder `work` in which the image is unpacked from its blobs."""
        from core.process import Launcher
        from core.snapshots.unpack import LayerUnpacker
        from core.transfer import platform
        from core.transfer.ports import Descriptor
        from core.transfer.pull import Held, pull
        from reconciler.assembly import SNAPSHOTTERS

        target = record["target"]
        descriptor = Descriptor(target["mediaType"], Digest.parse(target["digest"]), target["size"])
        launcher = Launcher()
        scratch = SNAPSHOTTERS[str(record["driver"])](work / str(record["driver"]), self.node.clock, launcher)
        try:
            with self.content.span() as span:
                held = Held(descriptor, str(record["wish"]["ref"]), "content")
                unpacker = LayerUnpacker(scratch, launcher, workers=1)
                wanted = platform.parse(str(record["platform"]))
                pull(held, wanted, span=span, clock=self.node.clock, unpacker=unpacker)
            yield scratch
        finally:
            scratch.close()


def lines(root: Path) -> dict[str, Line]:
    """The committed snapshots of the driver at `root`, by name, as its ledger has them."""
    from core.snapshots.ledger import Ledger
    from core.snapshots.ports import SnapshotKind

    if not (root / "ledger.db").exists():
        return {}
    ledger = Ledger(root / "ledger.db")
    try:
        return {line.info.key: line for line in ledger.lines() if line.info.kind is SnapshotKind.COMMITTED}
    finally:
        ledger.close()


def lineage(known: Mapping[str, Line], chain: str) -> list[str]:
    """A snapshot and all that it rests on; nothing when it is not there."""
    found: list[str] = []
    name: str | None = chain
    while name is not None and name in known:
        found.append(name)
        name = known[name].info.parent
    return found
