"""A held image to a registry (OCI distribution-spec, push): what is there already is not sent, the manifest comes last.

Steps: (1) each blob is asked for (HEAD), else mounted from a repository of the same registry, else uploaded in one
request, hashed on the way; (2) the manifests are put, those that an index names first; (3) the name is put.

Rules of this file: no retries here; a login goes to the registry's own address only, not to where an upload is sent on.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final
from urllib.parse import quote

from core.content.store import ContentStore
from core.digest import Digest
from core.errors import Invalid
from core.transfer import auth, faults, manifests
from core.transfer.export import Blob, Exported
from core.transfer.http import Reply
from core.transfer.manifests import MAX_DOCUMENT, Index, Manifest
from core.transfer.ports import Descriptor
from core.transfer.registry import Registry

_MAX_ERROR: Final = 64 << 10


class Upload(Registry):
    """A registry that is pushed to; made and used as `Registry` is."""

    actions = "pull,push"

    def has(self, digest: Digest) -> bool:
        """Whether the repository has the blob. Raises `Denied`, `Unavailable` and the like."""
        with self._open("HEAD", f"blobs/{digest}", {}) as reply:
            if reply.status not in (200, 404):
                self._need(reply, f"blob {digest} of {self.image}")
            return reply.status == 200

    def put_blob(self, content: ContentStore, digest: Digest, mount_from: str, told: Callable[[int], None]) -> None:
        """Have the blob there: mounted from repository `mount_from` where the registry can, else uploaded.

        Raises `WrongBytes` when it has rotted here, `Denied`, `Unavailable` and the like.
        """
        query = f"?mount={quote(str(digest))}&from={quote(mount_from, safe='')}" if mount_from else ""
        with self._open("POST", f"blobs/uploads/{query}", {"Content-Length": "0"}) as reply:
            if reply.status == 201:
                return
            self._accepted(reply, 202, f"an upload to {self.image}")
            to, same = auth.next_hop(self._url("blobs/uploads/"), reply.headers.get("Location", ""), self._http.plain)
        with Blob(content, digest, told) as blob:
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
            url = f"{to}{'&' if '?' in to else '?'}digest={quote(str(digest))}"
            self._put(url, headers, blob, f"blob {digest} of {self.image}", login=same)
            blob.check()

    def put_manifest(self, name: str, media_type: str, data: bytes) -> None:
        """Put a manifest or index under a tag or digest. Raises `Denied`, `Invalid`, `Unavailable` and the like."""
        headers = {"Content-Type": media_type, "Content-Length": str(len(data))}
        self._put(self._url(f"manifests/{name}"), headers, io.BytesIO(data), f"{self.image} ({name})", login=True)

    def _put(self, url: str, headers: Mapping[str, str], body: io.IOBase, what: str, *, login: bool) -> None:
        held = {"Authorization": self._authorization} if login and self._authorization else {}
        reply = self._http.send("PUT", url, {**headers, **held}, body)
        try:
            self._accepted(reply, 201, what)
        finally:
            self._http.end(reply)

    def _accepted(self, reply: Reply, status: int, what: str) -> None:
        if reply.status != status:
            body = self._small(reply, _MAX_ERROR)
            raise faults.refusal(what, reply.status, body, reply.headers, logged_in=self._credentials is not None)

    def _url(self, path: str) -> str:
        return f"{self._base}/{path}{self._query}"


def push(
    upload: Upload, content: ContentStore, image: Exported, mount_from: str, told: Callable[[int], None]
) -> Descriptor:
    """Push `image` under the name that `upload` was opened with; returns what it is there.

    An index goes whole when all that it names is held, else the one image alone. The caller holds a span. Raises
    `BlobMissing`, `WrongBytes`, `Denied`, `Unavailable` and the like.
    """
    documents = _documents(content, image)
    target = next(iter(documents))
    done = 0
    for _, manifest in documents.values():
        if not isinstance(manifest, Manifest):
            continue
        for blob in dict.fromkeys((manifest.config, *manifest.layers)):
            if not upload.has(blob.digest):
                upload.put_blob(content, blob.digest, mount_from, partial(_further, told, done))
            done += blob.size
            told(done)
    for descriptor, (data, _) in reversed(documents.items()):
        upload.put_manifest(str(descriptor.digest), descriptor.media_type, data)
    if upload.tag:
        upload.put_manifest(upload.tag, target.media_type, documents[target][0])
    return target


def _further(told: Callable[[int], None], done: int, here: int) -> None:
    told(done + here)


def _documents(content: ContentStore, image: Exported) -> dict[Descriptor, tuple[bytes, Manifest | Index]]:
    """What is put: an index and all below it, else the manifest; what is named by others comes after them."""
    whole = _below(content, image.target)
    return whole if whole is not None else _below(content, image.manifest) or _none(image)


def _below(content: ContentStore, target: Descriptor) -> dict[Descriptor, tuple[bytes, Manifest | Index]] | None:
    found: dict[Descriptor, tuple[bytes, Manifest | Index]] = {}
    todo = [target]
    while todo:
        current = todo.pop(0)
        if content.size(current.digest) is None or len(found) > manifests.MAX_ENTRIES:
            return None
        if current in found:
            continue
        data = content.read(current.digest, MAX_DOCUMENT)
        document = manifests.parse_document(data, current.media_type)
        found[current] = (data, document)
        if isinstance(document, Index):
            todo += [entry for entry, _ in document.entries]
        elif any(content.size(one.digest) is None for one in (document.config, *document.layers)):
            return None
    return found


def _none(image: Exported) -> dict[Descriptor, tuple[bytes, Manifest | Index]]:
    raise Invalid(f"{image.name}: not all of it is held", advice="Mend it first: reconciler content repair")
