"""`reconciler content`: the blobs on this node: listed, checked, repaired."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from core.digest import Digest
from reconciler.cli.context import Node, pass_node
from reconciler.cli.options import DURATION
from reconciler.cli.output import output_option
from reconciler.cli.terminal import complain_in_words, say
from reconciler.cli.texts import amount, counted, table
from reconciler.model.identity import Key, Kind

if TYPE_CHECKING:
    from core.content.store import ContentStore
    from reconciler.store.port import ObjectStore

_CHUNK: Final = 1 << 20
_NICE: Final = 19


@dataclass(frozen=True, slots=True)
class Bad:
    """A blob that is wrong or missing, and the images that need it."""

    digest: str
    what: str
    images: tuple[str, ...]


@click.group("content")
def command() -> None:
    """The blobs on this node: list them, check them, repair them.

    \b
    Examples:
      reconciler content check
      reconciler content repair
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
@output_option("json")
@pass_node
def check_command(node: Node, output: str | None) -> int:
    """Read every blob, at the lowest priority, and compare it with its name. Changes nothing.

    Exit code 0: all is right; 1: something is wrong.
    """
    store = node.store()
    if store is None:
        say('{"items": []}' if output else "Nothing to check: there is no store.")
        return 0
    bad, count = check(node, store)
    if output:
        import json

        found = [{"digest": one.digest, "what": one.what, "images": list(one.images)} for one in bad]
        say(json.dumps({"items": found}, indent=2))
    else:
        _tell(bad)
        say(f"Checked: {counted(count, 'blob')}, {counted(len(bad), 'fault')}.")
    return 1 if bad else 0


@command.command("repair")
@click.option("--timeout", type=DURATION, default=900.0, metavar="15m", help="Give up waiting after this long [15m].")
@pass_node
def repair_command(node: Node, timeout: float) -> int:
    """Check, throw away what is wrong, and have the images fetch it anew from where they came. Waits for it.

    Exit code 0: all is right now; 1: something is still wrong; 3: not in time.
    """
    from reconciler.cli.collect import ask
    from reconciler.cli.delete import settle
    from reconciler.cli.verdicts import exit_code, tell_failures

    store = node.store()
    if store is None:
        say("Nothing to repair: there is no store.")
        return 0
    bad, _ = check(node, store)
    if not bad:
        say("Nothing to repair.")
        return 0
    done = ask(node, store, "repair", {"blobs": [one.digest for one in bad]})
    keys = frozenset(Key(Kind.IMAGE, name) for name in done["images"])
    deadline = node.clock.monotonic() + timeout
    content = _content(node)
    while True:
        left = max(0.0, deadline - node.clock.monotonic())
        verdict = settle(node, store, keys, left)
        missing = [one for one in bad if one.images and content.size(Digest.parse(one.digest)) is None]
        if not missing or verdict.stalled or verdict.timed_out:
            break
        node.clock.sleep(0.1)
    tell_failures(store.list(), verdict.stalled | verdict.pending)
    say(f"Repaired: {counted(len(bad) - len(missing), 'blob')}, {len(missing)} still missing.")
    return exit_code(verdict) or (1 if missing else 0)


def check(node: Node, store: ObjectStore) -> tuple[list[Bad], int]:
    """What is wrong, and how many blobs were looked at: at the lowest priority, with progress, a MiB at a time."""
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
    return bad, len(blobs)


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


def _tell(bad: Sequence[Bad]) -> None:
    for one in bad:
        needed = f"needed by image {', '.join(one.images)}" if one.images else "no image needs it"
        complain_in_words(f"corrupt: blob {one.digest} {one.what}", [f"{needed}. Mend it: reconciler content repair"])


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
