"""`reconciler content`: the blobs on this node, and what was unpacked from them: listed, checked, repaired."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from core.digest import Digest
from core.values import dataclass
from reconciler.cli.context import Node, pass_node
from reconciler.cli.options import DURATION
from reconciler.cli.output import output_option
from reconciler.cli.terminal import complain_in_words, say
from reconciler.cli.texts import amount, counted, table
from reconciler.model.identity import Key, Kind

if TYPE_CHECKING:
    from core.content.store import ContentStore
    from reconciler.cli.asking import Asking
    from reconciler.cli.unpacked import Damaged
    from reconciler.store.port import ObjectStore

_CHUNK: Final = 1 << 20
_NICE: Final = 19


@dataclass(frozen=True, slots=True)
class Bad:
    """A blob that is wrong or missing, and the images that need it."""

    digest: str
    what: str
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What a check came to. `skipped`: images whose snapshots were not compared, as a blob of theirs is wrong."""

    blobs: int
    bad: tuple[Bad, ...]
    snapshots: int = 0
    damaged: tuple[Damaged, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def faults(self) -> int:
        """How many things are wrong."""
        return len(self.bad) + len(self.damaged)


_snapshots_option = click.option(
    "--snapshots", is_flag=True, help="Unpack each image once more, aside, and compare what it was unpacked to."
)


@click.group("content")
def command() -> None:
    """The blobs on this node: list them, check them, repair them.

    \b
    Examples:
      reconciler content check
      reconciler content repair --snapshots
    """


@command.command("ls")
@output_option("json")
@pass_node
def ls_command(node: Node, output: str | None) -> int:
    """List the blobs, with the images that need them."""
    store = node.store()
    needs = _needs(store)
    content = _content(node) if store is not None else None
    blobs = [(str(one), content.size(one) or 0) for one in content.walk()] if content is not None else []
    if output:
        import json

        items = [{"digest": name, "size": size, "images": list(needs.get(name, ()))} for name, size in blobs]
        say(json.dumps({"items": items}, indent=2))
    else:
        rows = [(name, amount(size), ", ".join(needs.get(name, ())) or "-") for name, size in blobs]
        say(table(("DIGEST", "SIZE", "IMAGES"), rows))
    return 0


@command.command("check")
@_snapshots_option
@output_option("json")
@pass_node
def check_command(node: Node, output: str | None, snapshots: bool) -> int:
    """Read every blob, at the lowest priority, and compare it with its name. Changes nothing.

    With --snapshots also every file of every unpacked image, which takes the room of the largest one meanwhile.

    Exit code 0: all is right; 1: something is wrong.
    """
    store = node.store()
    if store is None:
        say('{"items": []}' if output else "Nothing to check: there is no store.")
        return 0
    found = check(node, store, snapshots=snapshots)
    if output:
        import json

        items: list[dict[str, object]] = [
            {"digest": one.digest, "what": one.what, "images": list(one.images)} for one in found.bad
        ]
        items += [
            {"snapshot": one.chain, "driver": one.driver, "what": list(one.what), "images": list(one.images)}
            for one in found.damaged
        ]
        say(json.dumps({"items": items}, indent=2))
    else:
        _tell(found)
        looked = [counted(found.blobs, "blob"), *([counted(found.snapshots, "snapshot")] if snapshots else [])]
        say(f"Checked: {', '.join(looked)}, {counted(found.faults, 'fault')}.")
    return 1 if found.faults else 0


@command.command("repair")
@_snapshots_option
@click.option("--timeout", type=DURATION, default=900.0, metavar="15m", help="Give up waiting after this long [15m].")
@pass_node
def repair_command(node: Node, timeout: float, snapshots: bool) -> int:
    """Check, throw away what is wrong, and have the images fetch or unpack it anew. Waits for it.

    A snapshot on which a container's root rests stays: the containers are named, and go first.

    Exit code 0: all is right now; 1: something is still wrong; 3: not in time.
    """
    from reconciler.cli.collect import ask
    from reconciler.cli.delete import settle
    from reconciler.cli.verdicts import exit_code, tell_failures

    store = node.store()
    if store is None:
        say("Nothing to repair: there is no store.")
        return 0
    found = check(node, store, snapshots=snapshots)
    if not found.faults:
        say("Nothing to repair.")
        return 0
    chains = [{"driver": one.driver, "chain": one.chain} for one in found.damaged]
    done = ask(node, store, "repair", {"blobs": [one.digest for one in found.bad], "snapshots": chains})
    keys = frozenset(Key(Kind.IMAGE, name) for name in done["images"])
    deadline = node.clock.monotonic() + timeout
    while True:
        left = max(0.0, deadline - node.clock.monotonic())
        verdict = settle(node, store, keys, left)
        missing = _missing(node, found, done["inUse"])
        if not missing or verdict.stalled or verdict.timed_out:
            break
        node.clock.sleep(0.1)
    tell_failures(store.list(), verdict.stalled | verdict.pending)
    for chain, names in done["inUse"].items():
        advice = f"Delete or stop {', '.join(f'container/{name}' for name in names)}, then: reconciler content repair"
        complain_in_words(f"busy: snapshot {chain} is in use", [f"{advice} --snapshots"])
    mended = [counted(len(found.bad), "blob"), *([counted(len(chains), "snapshot")] if snapshots else [])]
    say(f"Repaired: {', '.join(mended)}; {missing + len(done['inUse'])} still wrong.")
    return exit_code(verdict) or (1 if missing or done["inUse"] else 0)


def _missing(node: Node, found: Found, in_use: Collection[str]) -> int:
    """How much of what was wrong and could go is not there again."""
    content = _content(node)
    blobs = [one for one in found.bad if one.images and content.size(Digest.parse(one.digest)) is None]
    if not found.damaged:
        return len(blobs)
    from reconciler.cli.unpacked import lines

    known = {name: lines(node.paths.snapshots / name) for name in {one.driver for one in found.damaged}}
    going = (one for one in found.damaged if one.images and one.chain not in in_use)
    return len(blobs) + sum(one.chain not in known[one.driver] for one in going)


def check(node: Node, store: ObjectStore, *, snapshots: bool = False) -> Found:
    """What is wrong: looked for at the lowest priority, with progress, a piece at a time."""
    from reconciler.cli.asking import Asking

    os.nice(_NICE)
    content, needs = _content(node), _needs(store)
    blobs = list(content.walk())
    total = sum(content.size(one) or 0 for one in blobs)
    shown, here, bad = Asking(node.clock), 0, list[Bad]()
    for digest in blobs:
        hasher = digest.hasher()
        for piece in _pieces(content, digest):
            hasher.update(piece)
            here += len(piece)
            shown.tick({"doing": "check", "bytes": here, "of": total, "item": str(digest)[:19]})
        if hasher.hexdigest() != digest.hex and content.size(digest) is not None:
            bad.append(Bad(str(digest), "does not hash to its name", needs.get(str(digest), ())))
    shown.clear()
    held = set(map(str, content.walk()))
    bad += [Bad(name, "is missing", images) for name, images in sorted(needs.items()) if name not in held]
    found = Found(len(blobs), tuple(bad))
    return _check_unpacked(node, store, found, shown) if snapshots else found


def _check_unpacked(node: Node, store: ObjectStore, found: Found, shown: Asking) -> Found:
    from reconciler.cli.unpacked import Unpacked

    here = 0

    def tick(count: int, chain: str) -> None:
        nonlocal here
        here += count
        shown.tick({"doing": "compare", "bytes": here, "item": chain[:19]})

    looking = Unpacked(node, _content(node), tick)
    try:
        looking.check(store, {one.digest for one in found.bad})
    finally:
        shown.clear()
    return replace(found, snapshots=len(looking.seen), damaged=tuple(looking.damaged), skipped=tuple(looking.skipped))


def _pieces(content: ContentStore, digest: Digest) -> Iterator[bytes]:
    """A blob's bytes, taken out of the page cache again: the disk is looked at, and nobody's files are pushed out."""
    try:
        blob = open(content.path(digest), "rb", buffering=0)  # noqa: SIM115 - closed below; it may be collected now
    except FileNotFoundError:
        return
    with blob:
        os.posix_fadvise(blob.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while piece := blob.read(_CHUNK):
            yield piece
        os.posix_fadvise(blob.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _tell(found: Found) -> None:
    for one in found.bad:
        needed = f"needed by image {', '.join(one.images)}" if one.images else "no image needs it"
        complain_in_words(f"corrupt: blob {one.digest} {one.what}", [f"{needed}. Mend it: reconciler content repair"])
    for two in found.damaged:
        needed = f"of image {', '.join(two.images)}. Mend it: reconciler content repair --snapshots"
        complain_in_words(f"corrupt: snapshot {two.driver}/{two.chain}: {two.what[0]}", [*two.what[1:], needed])
    for name in found.skipped:
        say(f"image/{name} was not compared, as a blob of it is wrong: repair that first.")


def _needs(store: ObjectStore | None) -> dict[str, tuple[str, ...]]:
    """The images by the blobs that they need."""
    found: dict[str, list[str]] = {}
    for obj in store.list(Kind.IMAGE) if store is not None else ():
        for blob in obj.record.get("blobs", ()) if obj.deleted is None else ():
            found.setdefault(blob, []).append(obj.name)
    return {blob: tuple(names) for blob, names in found.items()}


def _content(node: Node) -> ContentStore:
    from core.content.store import ContentStore

    return ContentStore(node.paths.content)
