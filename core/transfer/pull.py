"""Bring one image onto the node: resolve its name once, fetch by digest what is not held, unpack as it comes.

Rules of this file: every byte is verified before anyone can see it; the first fault stops everything, and nothing
half-made stays but the beginning of a blob whose origin fell silent; nothing that refers to the image is handed out
before its blobs are durable. Connections are retried here and in `core.transfer.incoming`, and nowhere below.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Final

from core import fsio, telemetry
from core.clock import Clock
from core.content.ingest import WrongBytes
from core.content.store import Span
from core.digest import Digest
from core.errors import Corrupt, Invalid, NoSpace, NotFound, OverLimit
from core.layers import Budgets
from core.retrying import connecting
from core.transfer import manifests, platform
from core.transfer.incoming import Cancelled, Incoming
from core.transfer.manifests import MAX_DEPTH, MAX_DOCUMENT, Ambiguous, Index, Manifest
from core.transfer.platform import Platform
from core.transfer.ports import Descriptor, ImageConfig, LayerSink, LayerState, Progress, PulledImage, Remote, Unpacker
from core.values import dataclass

__all__ = ["Cancelled", "Held", "NoProgress", "choose", "pull"]

_POLL_SECONDS: Final = 0.05


class NoProgress:
    """Nobody is told."""

    def resolved(self, digest: Digest, layers: Sequence[Descriptor]) -> None:
        """Nothing."""

    def fetched(self, digest: Digest, total: int) -> None:
        """Nothing."""

    def layer(self, digest: Digest, state: LayerState) -> None:
        """Nothing."""


class Held:
    """The content store itself as the origin of an image that was pulled before: what is not held is not there."""

    def __init__(self, target: Descriptor, image: str, origin: str) -> None:
        self._target = target
        self.image = image
        self.origin = origin

    def resolve(self) -> Descriptor:
        """The target it was made with."""
        return self._target

    def document(self, descriptor: Descriptor) -> bytes:
        """Raises `NotFound`: a held document is not asked for here."""
        raise NotFound(f"{self.image}: {descriptor.digest} is not held on this node", advice="Pull the image again.")

    def blob(self, descriptor: Descriptor, start: int = 0) -> Iterator[bytes]:
        """Raises `NotFound`: a held blob is not asked for here."""
        raise NotFound(f"{self.image}: {descriptor.digest} is not held on this node", advice="Pull the image again.")


@dataclass(frozen=True, slots=True)
class _Found:
    """The manifest of the platform wanted, and the documents on the way to it."""

    target: Descriptor
    descriptor: Descriptor
    manifest: Manifest
    platform: Platform | None
    documents: tuple[Digest, ...]


def pull(
    remote: Remote,
    wanted: Platform,
    *,
    span: Span,
    clock: Clock,
    unpacker: Unpacker | None = None,
    budgets: Budgets | None = None,
    progress: Progress | None = None,
    parallel: int = 4,
    keep_free: int = 0,
    cancelled: Callable[[], bool] = lambda: False,
) -> PulledImage:
    """Bring the image that `remote` is into the content store of `span`, and through `unpacker` into snapshots.

    `parallel` blobs are fetched at once; `keep_free` percent of the disk must stay free; `cancelled` is asked often and
    from several threads. When it returns, all is durable; the caller records it before it ends the span. Raises the
    first fault: `NotFound`, `Denied`, `Unavailable`, `TimedOut`, `Throttled`, `Invalid`, `Unsupported`, `OverLimit`,
    `WrongBytes`, `NoSpace`, `Cancelled`, and whatever the unpacker raises.
    """
    transfer = _Transfer(remote, span, clock, progress or NoProgress(), cancelled)
    found = transfer.find(wanted)
    config, diff_ids = transfer.config(found, wanted)
    layers = found.manifest.layers
    transfer.progress.resolved(found.target.digest, layers)
    transfer.check_room(layers, keep_free)
    sink = None
    if unpacker is not None and found.manifest.is_module:
        sink = unpacker.module(diff_ids[0], manifests.MODULE_PATH)
    elif unpacker is not None:
        sink = unpacker.begin(diff_ids, [layer.size for layer in layers], budgets or Budgets())
    try:
        transfer.layers(layers, sink, parallel)
        chain = sink.finish() if sink is not None else ""
    except BaseException as fault:
        if sink is not None:
            sink.abort()
        if isinstance(fault, Corrupt):
            transfer.discard_rotten(layers)
        raise
    span.sync()
    if sink is not None:
        transfer.report_applied(layers, len(layers))
    blobs = (*found.documents, found.manifest.config.digest, *(layer.digest for layer in layers))
    return PulledImage(
        target=found.target,
        manifest=found.descriptor,
        config_digest=found.manifest.config.digest,
        config=config,
        platform=str(found.platform or _platform_of(config)),
        layers=layers,
        diff_ids=diff_ids,
        chain=chain,
        pulled_from=remote.origin,
        bytes_fetched=transfer.bytes_fetched,
        blobs=tuple(dict.fromkeys(blobs)),
    )


def choose(index: Index, wanted: Platform, image: str) -> tuple[Descriptor, Platform | None]:
    """The entry of `index` that serves `wanted` best; else the first that names no platform; raises `NotFound`."""
    known = [entry for entry in index.entries if entry[0].media_type in (*manifests.MANIFESTS, *manifests.INDEXES)]
    for candidate in (*platform.acceptable(wanted), None):
        for descriptor, offered in known:
            if offered == candidate:
                return descriptor, offered
    raise platform.missing(image, wanted, (offered for _, offered in known if offered is not None))


def _serves(config: ImageConfig, wanted: Platform) -> bool:
    """Whether the image is for `wanted`. One whose command is a module is for modules, whatever it was built on."""
    command = (*config.entrypoint, *config.cmd, "")[0]
    if wanted.architecture == "wasm" and (config.architecture == "wasm" or command.endswith(".wasm")):
        return True
    return _platform_of(config) in platform.acceptable(wanted)


def _platform_of(config: ImageConfig) -> Platform:
    return platform.normalised(config.os, config.architecture, config.variant)


class _Transfer:
    """The state of one pull."""

    def __init__(
        self, remote: Remote, span: Span, clock: Clock, progress: Progress, cancelled: Callable[[], bool]
    ) -> None:
        self.progress = progress
        self.bytes_fetched = 0
        self._remote = remote
        self._span = span
        self._store = span.store
        self._clock = clock
        self._cancelled = cancelled
        self._above = telemetry.current()
        self._failed = threading.Event()
        self._applied = 0

    def find(self, wanted: Platform) -> _Found:
        """Resolve the name, and go from index to index down to the manifest for `wanted`."""
        target = current = connecting(self._clock, self._remote.resolve)
        offered: Platform | None = None
        seen: list[Digest] = []
        while len(seen) <= MAX_DEPTH:
            if current.digest in seen:
                raise Ambiguous(f"{self._remote.image}: index {current.digest} holds itself")
            seen.append(current.digest)
            document = manifests.parse_document(self._document(current), current.media_type)
            if isinstance(document, Manifest):
                return _Found(target, current, document, offered, tuple(seen))
            current, offered = choose(document, wanted, self._remote.image)
        raise OverLimit(f"{self._remote.image}: indexes are nested more than {MAX_DEPTH} deep")

    def config(self, found: _Found, wanted: Platform) -> tuple[ImageConfig, tuple[Digest, ...]]:
        """The image's config and diff ids. Where no index said so, the config must say it is for `wanted`."""
        descriptor, layers = found.manifest.config, len(found.manifest.layers)
        data = self._read(descriptor)
        if data is None:
            self.bytes_fetched += self._bring(descriptor)
            data = self._store.read(descriptor.digest, MAX_DOCUMENT)
        if found.manifest.is_module:
            config, diff_ids = manifests.parse_module_config(data, found.manifest.layers[0].digest)
        else:
            config, diff_ids = manifests.parse_config(data, layers)
        if found.platform is None and not _serves(config, wanted):
            raise platform.missing(self._remote.image, wanted, [_platform_of(config)])
        return config, diff_ids

    def check_room(self, layers: Sequence[Descriptor], keep_free: int) -> None:
        """Raise `NoSpace` when the layers not held would leave less than `keep_free` percent of the disk free.

        Before the first byte of a layer. Raises `Invalid` too.
        """
        sizes: dict[Digest, int] = {}
        for layer in layers:
            if sizes.setdefault(layer.digest, layer.size) != layer.size:
                raise Invalid(f"{self._remote.image}: layer {layer.digest} is listed with two sizes")
        missing = {digest: size for digest, size in sizes.items() if not self._store.has(digest, size)}
        needed = sum(max(0, size - self._store.begun(digest)) for digest, size in missing.items())
        free, total = fsio.free_bytes(self._store.folder), fsio.total_bytes(self._store.folder)
        spare = total * keep_free // 100
        if needed and needed > free - spare:
            kept = f", of which {spare} ({keep_free} % of the disk) are to stay free" if spare else ""
            raise NoSpace(f"{self._remote.image}: its layers need {needed} bytes; {free} are free{kept}")

    def layers(self, layers: Sequence[Descriptor], sink: LayerSink | None, parallel: int) -> None:
        """Fetch what is not held, `parallel` at once, hand each layer on when complete; raise the first fault."""
        places: dict[Digest, list[int]] = {}
        for number, layer in enumerate(layers):
            places.setdefault(layer.digest, []).append(number)
        needed = frozenset(sink.missing()) if sink is not None else frozenset()
        with ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="fetch") as pool:
            coming = {pool.submit(self._bring, layers[numbers[0]], True): numbers for numbers in places.values()}
            try:
                for done in as_completed(coming):
                    self.bytes_fetched += done.result()
                    if sink is None:
                        continue
                    for number in needed.intersection(coming[done]):
                        packed = manifests.packed(layers[number].media_type)
                        sink.ready(number, self._store.path(layers[number].digest), packed)
                    self.report_applied(layers, sink.applied())
            except BaseException:
                self._failed.set()
                raise

    def report_applied(self, layers: Sequence[Descriptor], count: int) -> None:
        """Tell that the first `count` layers are applied."""
        for layer in layers[self._applied : count]:
            self.progress.layer(layer.digest, LayerState.APPLIED)
        self._applied = max(self._applied, count)

    def discard_rotten(self, layers: Sequence[Descriptor]) -> None:
        """After bytes turned out wrong: drop the blobs that no longer hash to their name, so that they come anew."""
        for digest in {layer.digest for layer in layers}:
            if not self._store.intact(digest):
                self._store.discard(digest)

    def _document(self, descriptor: Descriptor) -> bytes:
        """A manifest or index, from the store or else from the remote."""
        if descriptor.size > MAX_DOCUMENT:
            raise OverLimit(f"{self._remote.image}: manifest {descriptor.digest} has {descriptor.size} bytes")
        data = self._read(descriptor)
        if data is None:
            data = connecting(self._clock, lambda: self._remote.document(descriptor))
            self.bytes_fetched += len(data)
            self._check_size(descriptor, data)
            self._span.put(descriptor.digest, data, self._wait)
        return data

    def _check_size(self, descriptor: Descriptor, data: bytes) -> None:
        if len(data) != descriptor.size:
            said = f"{descriptor.size} bytes were promised, {len(data)} came"
            raise WrongBytes(f"{self._remote.image}: manifest {descriptor.digest}: {said}")

    def _read(self, descriptor: Descriptor) -> bytes | None:
        """A small blob that is held and right; a wrong one is dropped."""
        if not self._store.has(descriptor.digest, descriptor.size):
            return None
        try:
            return self._store.read(descriptor.digest, MAX_DOCUMENT)
        except WrongBytes:
            self._store.discard(descriptor.digest)
            return None

    def _bring(self, descriptor: Descriptor, is_layer: bool = False) -> int:
        """Have the blob in the store, whoever fetches it; returns the bytes that we fetched."""
        digest, fetched = descriptor.digest, 0
        with self._span.ingest(digest, descriptor.size, self._wait) as writer:
            if writer is not None:
                if is_layer:
                    self.progress.layer(digest, LayerState.FETCHING)
                coming = Incoming(self._remote, descriptor, writer, self._clock, self._check_stop, self.progress)
                with telemetry.span("image.fetch_layer", parent=self._above, layer=str(digest), size=descriptor.size):
                    fetched = coming.bring()
        if is_layer:
            self.progress.layer(digest, LayerState.HELD)
        return fetched

    def _check_stop(self) -> None:
        if self._failed.is_set() or self._cancelled():
            raise Cancelled(f"{self._remote.image}: the pull was stopped")

    def _wait(self) -> None:
        """Another thread or process fetches this blob: look again soon."""
        self._check_stop()
        self._clock.sleep(_POLL_SECONDS)
