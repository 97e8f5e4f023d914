"""`reconciler image push`: from the content store to a registry, with the configuration's proxies and logins."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from core.errors import NotFound
from reconciler.cli.context import Node
from reconciler.cli.terminal import say
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object

if TYPE_CHECKING:
    from reconciler.store.port import ObjectStore


def push_image(node: Node, store: ObjectStore, image: Object, target: str, secret: str) -> int:
    """Push a held image; the exit code. Raises what pushing raises."""
    from core.content.store import ContentStore
    from core.digest import Digest
    from core.process import Launcher
    from core.transfer import export, reference
    from core.transfer.ports import Descriptor
    from core.transfer.push import push
    from reconciler.cli.asking import Asking
    from reconciler.engine.remotes import Remotes
    from reconciler.translation import transfer_settings

    record, name = image.record, reference.parse(target or image.spec["ref"])
    remotes = Remotes(transfer_settings(node.config().transfer), Launcher(), node.clock, os.environ)
    login = secret or str(image.spec.get("credentials", {}).get("secret", ""))
    content, shown = ContentStore(node.paths.content), Asking(node.clock)
    whole = Descriptor(record["mediaType"], Digest.parse(record["digest"]), int(record["target"]["size"]))
    with content.span(), remotes.upload(name, _secret(store, login), login) as upload:
        manifest, needed = export.inside(content, whole, tuple(Digest.parse(blob) for blob in record["blobs"]))
        what = export.Exported(name, whole, manifest, needed)
        came = reference.parse(image.spec["ref"])
        beside = came.repository if came.registry == name.registry and came.repository != name.repository else ""
        total = int(record["size"])
        pushed = push(
            upload, content, what, beside, lambda done: shown.tick({"doing": "push", "bytes": done, "of": total})
        )
        shown.clear()
    say(f"{name}  {pushed.digest}")
    return 0


def _secret(store: ObjectStore, name: str) -> Mapping[str, bytes]:
    from reconciler.model.kinds.secret import SecretSpec

    if not name:
        return {}
    found = store.get(Key(Kind.SECRET, name))
    if found is None:
        raise NotFound(f"there is no secret/{name}", advice="Apply it first, or name another with --credentials.")
    return SecretSpec.model_validate(found.spec).contents()
