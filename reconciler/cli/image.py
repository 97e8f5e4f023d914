"""`reconciler image`: images by hand. `pull`, `import` and `tag` make Image objects of the set `manual`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from core.errors import Invalid, NotFound
from reconciler.cli.context import Node, pass_node
from reconciler.cli.options import DURATION
from reconciler.cli.output import output_option
from reconciler.cli.terminal import say, tell
from reconciler.cli.texts import amount, counted, table
from reconciler.model.identity import FINALIZERS, Key, Kind, checked_name
from reconciler.model.objects import Object

if TYPE_CHECKING:
    from reconciler.store.functions import Wanted
    from reconciler.store.port import ObjectStore

MANUAL: Final = "manual"
_WAIT = click.option(
    "--timeout", type=DURATION, default=900.0, metavar="15m", help="Give up waiting after this long [15m]."
)
_NAMED = click.option("--object", "name", default="", metavar="NAME", help="The Image object's name.")


@click.group("image")
def command() -> None:
    """Images by hand: bring them in, look at them, hand them on, let them go.

    \b
    Examples:
      reconciler image pull registry.example.org/web:1.2
      reconciler image export web-1.2 -o web.tar
    """


@command.command("pull")
@click.argument("ref")
@click.option("--platform", default="", metavar="OS/ARCH", help="Another than the node's.")
@click.option("--credentials", "secret", default="", metavar="SECRET", help="A Secret with username and password.")
@_NAMED
@_WAIT
@pass_node
def pull_command(node: Node, ref: str, platform: str, secret: str, name: str, timeout: float) -> int:
    """Bring an image in from its registry, and keep it: an Image object of the set `manual`.

    \b
    Example:
      reconciler image pull registry.example.org/web:1.2
    """
    spec: dict[str, Any] = {"ref": ref}
    spec |= {"platform": platform} if platform else {}
    spec |= {"credentials": {"secret": secret}} if secret else {}
    return _bring(node, [_wanted(name or object_name(ref), spec)], timeout)


@command.command("import")
@click.argument("file", type=click.Path(exists=True))
@click.option(
    "--name", "ref", default="", metavar="REF", help="Which image of the archive, or how to call the only one."
)
@click.option("--platform", default="", metavar="OS/ARCH", help="Another than the node's.")
@_NAMED
@_WAIT
@pass_node
def import_command(node: Node, file: str, ref: str, platform: str, name: str, timeout: float) -> int:
    """Bring images in from an OCI layout, an OCI tar or a docker archive: without --name all that have a name in it.

    \b
    Examples:
      reconciler image import web.tar
      reconciler image import layout/ --name registry.example.org/web:1.2
    """
    path = os.path.abspath(file)
    refs = [ref] if ref else _names_in(Path(path))
    if name and len(refs) != 1:
        raise Invalid(f"the archive holds {len(refs)} images", advice="Choose one with --name.")
    spec: dict[str, Any] = {"archive": path, **({"platform": platform} if platform else {})}
    return _bring(node, [_wanted(name or object_name(one), {"ref": one, **spec}) for one in refs], timeout)


def _names_in(path: Path) -> list[str]:
    """The full names of the images in an archive; raises `Invalid` when one has none."""
    import tempfile

    from core.transfer.archive import entries, full_name
    from core.transfer.members import open_members

    opened = open_members(path, Path(tempfile.gettempdir()))
    try:
        found = entries(opened)
    finally:
        opened.close()
    names = [next((str(full) for one in entry.names if (full := full_name(one))), "") for entry in found]
    if not names or "" in names:
        listed = "; ".join(map(str, found)) or "nothing"
        raise Invalid(f"{path} does not say what its images are called: {listed}", advice="Say it with --name REF.")
    return list(dict.fromkeys(names))


def object_name(ref: str) -> str:
    """The name of the Image object made for a reference: its last path part and its tag, or what begins its digest."""
    from core.transfer import reference

    parsed = reference.parse(ref)
    suffix = parsed.tag or (parsed.digest.short() if parsed.digest else "")
    text = f"{parsed.repository.rpartition('/')[2]}-{suffix}".lower()
    return checked_name(re.sub(r"[^-a-z0-9.]+|\.\.+", "-", text)[:63].strip("-."))


def _wanted(name: str, spec: dict[str, Any]) -> Wanted:
    from reconciler.model.kinds.checking import check_spec
    from reconciler.store.functions import Wanted

    for problem in check_spec(Kind.IMAGE, spec):
        raise Invalid(f"{'.'.join(map(str, problem.path[1:]))} {problem.message}", advice=problem.advice)
    return Wanted(Key(Kind.IMAGE, checked_name(name)), spec)


def _bring(node: Node, wanted: Sequence[Wanted], timeout: float) -> int:
    """Apply, wait with progress, and say what came; the exit codes of `apply`."""
    from reconciler.cli.apply import refuse_without_root
    from reconciler.cli.delete import settle
    from reconciler.cli.verdicts import exit_code, tell_failures
    from reconciler.engine.doorbell import ring
    from reconciler.store.applied import keep_applied, set_manager
    from reconciler.store.functions import Manager, apply_specs

    refuse_without_root([Object(want.key, spec=want.spec) for want in wanted])
    store = node.store_to_write()
    apply_specs(store, wanted, Manager(set_manager(MANUAL)), finalizers=FINALIZERS)
    keys = frozenset(want.key for want in wanted)
    keep_applied(node.paths.root, store, keys)
    ring(node.paths.state)
    verdict = settle(node, store, keys, timeout)
    tell_failures(store.list(), verdict.stalled | verdict.pending)
    for key in sorted(verdict.done):
        if (obj := store.get(key)) is not None:
            say(f"{key}: {obj.spec['ref']}  {obj.record.get('digest', '')}")
    return exit_code(verdict)


@command.command("tag")
@click.argument("source")
@click.argument("target")
@_NAMED
@pass_node
def tag_command(node: Node, source: str, target: str, name: str) -> int:
    """Give a held image one more name, kept as an Image object of the set `manual`. Nothing is fetched.

    \b
    Example:
      reconciler image tag web registry.example.org/web:1.3
    """
    from reconciler.cli.delete import settle
    from reconciler.cli.verdicts import exit_code
    from reconciler.engine.doorbell import ring
    from reconciler.store.applied import keep_applied, set_manager
    from reconciler.store.port import Put

    store = _store(node)
    image = _held(store, source)
    wish = {**image.record["wish"], "ref": target}
    wish.pop("archive", None)
    spec = {name: image.spec[name] for name in ("platform", "snapshotter") if name in image.spec} | {"ref": target}
    want = _wanted(name or object_name(target), spec)
    if (there := store.get(want.key)) is not None:
        raise Invalid(f"{want.key} is there already", advice=f"Remove it first: reconciler image rm {there.name}")
    finalizers = frozenset({FINALIZERS[Kind.IMAGE]})
    made = Object(want.key, spec=spec, record={**image.record, "wish": wish}, manager=set_manager(MANUAL))
    store.commit([Put(Object(**{**_fields(made), "finalizers": finalizers}), 0), Put(image, image.version)])
    keep_applied(node.paths.root, store, [want.key])
    ring(node.paths.state)
    verdict = settle(node, store, frozenset({want.key}), 60.0)
    say(f"{want.key}: {target}  {image.record['digest']}")
    return exit_code(verdict)


def _fields(obj: Object) -> dict[str, Any]:
    return {name: getattr(obj, name) for name in ("key", "spec", "record", "manager")}


@command.command("ls")
@output_option("json", "yaml")
@pass_node
def ls_command(node: Node, output: str | None) -> int:
    """List the images on this node."""
    from reconciler.cli.output import say_items

    store = node.store()
    images = store.list(Kind.IMAGE) if store is not None else ()
    if output:
        say_items([obj.to_json() for obj in images], output)
        return 0
    rows = [
        (
            obj.spec["ref"],
            str(obj.record.get("digest", "")).partition(":")[2][:12],
            obj.record.get("platform", ""),
            amount(obj.record["size"]) if "size" in obj.record else "",
            obj.name,
            obj.manager,
        )
        for obj in images
    ]
    say(table(("REF", "DIGEST", "PLATFORM", "SIZE", "NAME", "MANAGER"), rows))
    return 0


@command.command("inspect")
@click.argument("image")
@pass_node
def inspect_command(node: Node, image: str) -> int:
    """All that is known of a held image, as JSON: layers, configuration, blobs, snapshot."""
    import json

    obj = _held(_store(node), image)
    names = ("digest", "mediaType", "platform", "size", "layers", "config", "blobs", "driver", "chain", "pulledFrom")
    found = {"name": obj.name, "ref": obj.spec["ref"], **{name: obj.record.get(name) for name in names}}
    say(json.dumps(found, indent=2, ensure_ascii=False))
    return 0


@command.command("rm")
@click.argument("images", nargs=-1, required=True)
@_WAIT
@pass_node
def rm_command(node: Node, images: tuple[str, ...], timeout: float) -> int:
    """Let images go, by name or reference: the objects, and with them what nothing else needs."""
    from reconciler.cli.delete import chosen, finish, mark

    store = _store(node)
    names = [str(_found(store, image).key) for image in images]
    objects = chosen(store, names, (), "")
    began = node.clock.monotonic()
    keys = mark(node, store, objects, purge=False)
    return finish(node, store, keys, len(objects), timeout, began)


@command.command("export")
@click.argument("image")
@click.option("-o", "--output", "to", required=True, type=click.Path(), metavar="FILE", help="The archive to write.")
@click.option("--format", "form", type=click.Choice(["oci", "docker"]), default="oci", help="Which kind [oci].")
@click.option("--platform", default="", metavar="OS/ARCH", help="The image for it alone, without its index.")
@pass_node
def export_command(node: Node, image: str, to: str, form: Any, platform: str) -> int:
    """Write a held image to an archive: an OCI layout in a tar, or what docker and podman load. Always the same bytes.

    \b
    Example:
      reconciler image export web -o web.tar
    """
    from core.content.store import ContentStore
    from core.digest import Digest
    from core.transfer import export, reference
    from core.transfer.ports import Descriptor
    from reconciler.cli.asking import Asking

    obj = _held(_store(node), image)
    one_platform = bool(platform) and _is_for(obj, platform)
    content, record = ContentStore(node.paths.content), obj.record
    with content.span():
        target = Descriptor(record["mediaType"], Digest.parse(record["digest"]), int(record["target"]["size"]))
        blobs = tuple(Digest.parse(blob) for blob in record["blobs"])
        manifest, needed = export.inside(content, target, blobs)
        what = export.Exported(
            reference.parse(obj.spec["ref"]), manifest if one_platform else target, manifest,
            needed if one_platform else blobs,
        )  # fmt: skip
        total = sum(content.size(blob) or 0 for blob in what.blobs)
        shown = Asking(node.clock)
        size = export.export(
            content, what, Path(os.path.abspath(to)), form,
            lambda done: shown.tick({"doing": "export", "bytes": done, "of": total}),
        )  # fmt: skip
        shown.clear()
    tell(f"{to}: {amount(size)}, {counted(len(what.blobs), 'blob')}, {what.target.digest}")
    return 0


@command.command("push")
@click.argument("image")
@click.argument("target", required=False)
@click.option("--credentials", "secret", default="", metavar="SECRET", help="A Secret with username and password.")
@pass_node
def push_command(node: Node, image: str, target: str | None, secret: str) -> int:
    """Push a held image to its registry, or under the name TARGET. What is there already is not sent again.

    \b
    Examples:
      reconciler image push registry.example.org/web:1.2
      reconciler image push web registry.example.org/copies/web:1.2
    """
    from reconciler.cli.pushing import push_image

    store = _store(node)
    return push_image(node, store, _held(store, image), target or "", secret)


def _is_for(obj: Object, wanted: str) -> bool:
    from core.transfer import platform

    if platform.parse(wanted) != platform.parse(str(obj.record["platform"])):
        advice = f"Pull it too: reconciler image pull {obj.spec['ref']} --platform {wanted} --object NAME"
        raise NotFound(f"{obj.key} is held for {obj.record['platform']} only", advice=advice)
    return True


def _store(node: Node) -> ObjectStore:
    store = node.store()
    if store is None:
        raise NotFound("there is no image: nothing was ever applied on this node")
    return store


def _found(store: ObjectStore, text: str) -> Object:
    """The Image of a name or a reference; raises `NotFound`."""
    from core.transfer import reference

    images = store.list(Kind.IMAGE)
    named = [obj for obj in images if obj.name == text.removeprefix("image/")]
    if not named:
        try:
            wanted = reference.parse(text)
        except Invalid:
            wanted = None
        # Of several objects of one reference the one made by hand: that is the one a person may remove.
        found = [obj for obj in images if reference.parse(obj.spec["ref"]) == wanted]
        named = sorted(found, key=lambda obj: obj.manager != f"set/{MANUAL}")
    if not named:
        raise NotFound(f"there is no image {text}", advice="List what is there: reconciler image ls")
    return named[0]


def _held(store: ObjectStore, text: str) -> Object:
    obj = _found(store, text)
    if not obj.record.get("digest"):
        raise NotFound(f"{obj.key} is not held on this node yet", advice=f"Wait for it: reconciler wait {obj.key}")
    return obj
