"""Hands for images: pull, remember, forget, remove snapshots."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from core import telemetry
from core.clock import Clock
from core.digest import Digest
from core.errors import AgentError, Invalid, NotFound
from core.snapshots.ports import SnapshotInUse, Snapshotter
from core.transfer import platform, reference
from core.transfer.platform import Platform
from core.transfer.ports import Descriptor, LayerState, PulledImage, Remote, Unpacker
from reconciler.decide.freshness import answered, unanswered
from reconciler.decide.marking import held_records, keep_of, keepers, needed
from reconciler.engine.collecting import unneeded, why_not
from reconciler.engine.observe import Eyes
from reconciler.engine.remotes import Remotes
from reconciler.model.actions import CheckImage, ForgetImage, PullImage, RemoveChain
from reconciler.model.identity import Key, Kind
from reconciler.model.kinds.secret import SecretSpec
from reconciler.model.objects import Object, with_record
from reconciler.store.functions import modify
from reconciler.store.port import Event

_EVERY: Final = 0.25
"""Seconds between two tellings of how far a transfer is."""


class Telling:
    """Progress of one pull, as status fields; told at most every 250 ms."""

    def __init__(self, key: Key, eyes: Eyes, clock: Clock, tell: Callable[[Key], None]) -> None:
        self._key = key
        self._eyes = eyes
        self._clock = clock
        self._tell = tell
        self._layers: dict[str, dict[str, Any]] = {}
        self._last = 0.0

    def resolved(self, digest: Digest, layers: Sequence[Descriptor]) -> None:
        """The layers are known."""
        waiting = LayerState.WAITING.value
        self._layers = {
            str(one.digest): {"digest": str(one.digest), "size": one.size, "state": waiting} for one in layers
        }
        self._digest = str(digest)
        self._publish(force=True)

    def fetched(self, digest: Digest, total: int) -> None:
        """Some bytes more of a blob."""
        layer = self._layers.get(str(digest))
        if layer is not None:
            layer["fetched"] = total
            self._publish()

    def layer(self, digest: Digest, state: LayerState) -> None:
        """A layer has moved on."""
        layer = self._layers.get(str(digest))
        if layer is not None:
            layer["state"] = state.value
            self._publish()

    def _publish(self, *, force: bool = False) -> None:
        now = self._clock.monotonic()
        if force or now - self._last >= _EVERY:
            self._last = now
            layers = [dict(layer) for layer in self._layers.values()]
            fetched = sum(int(layer.get("fetched", 0)) for layer in layers)
            self._eyes.note_progress(self._key, {"digest": self._digest, "layers": layers, "bytesFetched": fetched})
            self._tell(self._key)


class Unwanted:
    """Whether a pull is to stop: the engine ends, or the image is being deleted. Asked often, looks every 250 ms."""

    def __init__(self, key: Key, eyes: Eyes, clock: Clock, stopping: Callable[[], bool]) -> None:
        self._key = key
        self._eyes = eyes
        self._clock = clock
        self._stopping = stopping
        self._looked = clock.monotonic()
        self._deleted = False

    def __call__(self) -> bool:
        now = self._clock.monotonic()
        if now - self._looked >= _EVERY:
            self._looked = now
            obj = self._eyes.store.get(self._key)
            self._deleted = obj is None or obj.deleted is not None
        return self._deleted or self._stopping()


class ImageHands:
    """Pulls, forgets and removes. `tell` publishes an image's status; `stopping` says that the engine is to end."""

    def __init__(
        self,
        eyes: Eyes,
        unpackers: Mapping[str, Callable[[], Unpacker]],
        remotes: Remotes,
        clock: Clock,
        tell: Callable[[Key], None],
        stopping: Callable[[], bool],
    ) -> None:
        self._eyes = eyes
        self._unpackers = unpackers
        self._remotes = remotes
        self._clock = clock
        self._tell = tell
        self._stopping = stopping

    def pull(self, action: PullImage) -> None:
        """Fetch, verify, unpack; then remember durably what it is. Raises what `core.transfer.pull` raises."""
        from core.transfer.pull import pull

        wanted = platform.parse(action.platform)
        unpacker = self._unpackers.get(action.driver)
        if unpacker is None:
            raise Invalid(
                f"there is no snapshotter {action.driver!r}", advice=f"There is: {', '.join(self._unpackers)}."
            )
        telling = Telling(action.key, self._eyes, self._clock, self._tell)
        unwanted = Unwanted(action.key, self._eyes, self._clock, self._stopping)
        settings = self._remotes.settings
        common: dict[str, Any] = {"clock": self._clock, "unpacker": unpacker(), "progress": telling}
        common |= {"parallel": settings.parallel, "keep_free": settings.keep_free}
        try:
            with self._eyes.node.content.span() as span:
                with self._remote(action, wanted) as (remote, told):
                    image = pull(remote, wanted, span=span, cancelled=unwanted, **common)
                self._remember(action, image, told)
        finally:
            self._eyes.note_progress(action.key, {})

    @contextlib.contextmanager
    def _remote(self, action: PullImage, wanted: Platform) -> Iterator[tuple[Remote, Mapping[str, Any]]]:
        """Where the image comes from (its archive, what is held already, or its registry), and how fresh that is."""
        from core.retrying import connecting
        from core.transfer.pull import Held

        asked = {"checkedAt": self._clock.wall(), "stale": None, "next": None}

        if action.archive:
            from core.transfer.archive import Archive

            path = Path(action.archive.rpartition("|")[0])
            with Archive(path, reference.parse(action.ref), wanted, self._eyes.node.content.folder) as archive:
                yield archive, {}
            return
        held = self._held(action)
        if held is not None and not action.anew:
            yield Held(held, action.ref, "content"), {}
            return
        with self._remotes.open(self._origin(action), self._secret(action.secret), action.secret) as registry:
            try:
                if held is not None:
                    connecting(self._clock, registry.resolve)
            except AgentError as error:
                asked |= {"next": None, **unanswered(error, self._clock.wall())}
                yield Held(held, action.ref, "content") if held is not None else registry, asked
            else:
                yield registry, asked

    def _origin(self, action: PullImage) -> reference.Reference:
        """Where to pull from: what was lost comes back as the very bytes that it was, not as what a tag says today."""
        named = reference.parse(action.ref)
        obj = self._eyes.store.get(action.key)
        wish = {"ref": action.ref, "platform": action.platform, "driver": action.driver}
        if action.anew or obj is None or obj.record.get("wish") != wish:
            return named
        wall, digest = self._clock.wall(), obj.record["target"]["digest"]
        message = f"blobs or snapshots of {digest} are gone or damaged: they are fetched again"
        self._eyes.store.add_event(Event(0, action.key, "Warning", "ContentLost", message, wall, wall))
        return replace(named, digest=Digest.parse(digest))

    def _held(self, action: PullImage) -> Descriptor | None:
        """What the reference was resolved to, by this image or another, when all of it is held."""
        for record in held_records(self._eyes.store.list()):
            same = (
                record.get("wish", {}).get("ref") == action.ref
                and record.get("wish", {}).get("platform") == action.platform
            )
            if same and self._eyes.held(record):
                target = record["target"]
                return Descriptor(target["mediaType"], Digest.parse(target["digest"]), target["size"])
        if action.local_only:
            advice = "Set pullPolicy: IfNotPresent, or bring the image to the node first."
            raise NotFound(f"{action.ref} is not held on this node, and pullPolicy is Never", advice=advice)
        return None

    def check(self, action: CheckImage) -> None:
        """Ask what the tag means, and remember the answer; that there is none is remembered too, and no fault."""
        from core.retrying import connecting

        wall = self._clock.wall
        try:
            named = reference.parse(action.ref)
            with self._remotes.open(named, self._secret(action.secret), action.secret) as registry:
                found = connecting(self._clock, registry.resolve)
        except AgentError as error:
            told = unanswered(error, wall())
            modify(self._eyes.store, action.key, lambda obj: with_record(obj, told))
            return
        target = _as_json(found)
        modify(self._eyes.store, action.key, lambda obj: with_record(obj, answered(obj.record, target, wall())))

    def _secret(self, name: str) -> Mapping[str, bytes]:
        obj = self._eyes.store.get(Key(Kind.SECRET, name)) if name else None
        found = SecretSpec.model_validate(obj.spec).contents() if obj is not None else {}
        if name and not found:
            raise Invalid(f"secret/{name} holds no login", advice="Give it the keys username and password.")
        return found

    def _remember(self, action: PullImage, image: PulledImage, told: Mapping[str, Any]) -> None:
        before = self._eyes.store.get(action.key)
        if before is not None and before.record.get("wish", {}).get("ref") != action.ref:
            self._hand_over(action.key)
        size = sum(layer.size for layer in image.layers)
        telemetry.note(digest=str(image.target.digest), layers=len(image.layers), size=size)
        telemetry.note(fetched=image.bytes_fetched, host=image.pulled_from)
        telemetry.count("reconciler.transfer.fetched", image.bytes_fetched, host=image.pulled_from)
        record = {
            "wish": {"ref": action.ref, "platform": action.platform, "driver": action.driver}
            | ({"archive": action.archive} if action.archive else {}),
            "driver": action.driver,
            "chain": image.chain,
            "digest": str(image.target.digest),
            "mediaType": image.target.media_type,
            "target": _as_json(image.target),
            "platform": image.platform,
            "size": size,
            "layers": [
                {"digest": str(layer.digest), "size": layer.size, "state": LayerState.APPLIED.value}
                for layer in image.layers
            ],
            "config": image.config.to_json(),
            "blobs": [str(blob) for blob in image.blobs],
            "pulledFrom": image.pulled_from,
            "bytesFetched": image.bytes_fetched,
            "checkedAt": None,
            "stale": None,
            "next": None,
            **told,
        }
        modify(self._eyes.store, action.key, lambda obj: with_record(obj, record))

    def forget(self, action: ForgetImage) -> None:
        """Remove the blobs that nothing else needs: all of them, as a pull that was killed may have left some.

        Its own only, where the store may not know all that is needed. Raises `Busy` while a transfer is under way.
        """
        self._hand_over(action.key)
        content = self._eyes.node.content

        def keep() -> set[Digest]:
            objects = self._eyes.store.list()
            stay = {Digest.parse(blob) for blob in needed(objects, action.key).blobs}
            if self._forgetful():
                own = (obj.record.get("blobs", ()) for obj in objects if obj.key == action.key)
                stay |= set(content.walk()) - {Digest.parse(blob) for blobs in own for blob in blobs}
            return stay

        content.collect(keep)

    def remove_chain(self, action: RemoveChain) -> None:
        """Remove the committed snapshots that nothing else needs, topmost first: all of them, as `forget` does.

        Where the store may not know all that is needed: the chain itself, and what it rests on. Raises `Busy`.
        """
        if action.key.kind is Kind.IMAGE:
            self._hand_over(action.key)
        snapshotter = self._eyes.node.snapshotters[action.driver]
        with self._eyes.node.content.closed():
            going = unneeded(snapshotter, action.driver, needed(self._eyes.store.list(), action.key))
            if self._forgetful():
                going = [chain for chain in going if chain in _lineage(snapshotter, action.chain)]
            for chain in going:
                with contextlib.suppress(SnapshotInUse):  # a container's root came to rest on it meanwhile
                    snapshotter.remove(chain)

    def _hand_over(self, key: Key) -> None:
        """Let the Revisions that name an image keep what it is now: one may go back to them with no network."""
        image = self._eyes.store.get(key)
        if image is None or not image.record.get("blobs") or not self._eyes.held(image.record):
            return
        for revision in keepers(self._eyes.store.list(Kind.REVISION), image.record):
            with contextlib.suppress(NotFound):  # the revision is not kept any more
                modify(self._eyes.store, revision.key, partial(_keeping, keep_of(image.record)))

    def _forgetful(self) -> bool:
        return bool(why_not(self._eyes.store, self._clock.wall()))


def _as_json(descriptor: Descriptor) -> dict[str, Any]:
    """A descriptor as records have it."""
    return {"mediaType": descriptor.media_type, "digest": str(descriptor.digest), "size": descriptor.size}


def _keeping(kept: Mapping[str, Any], revision: Object) -> Object:
    return with_record(revision, {"keeps": [*revision.record.get("keeps", ()), kept]})


def _lineage(snapshotter: Snapshotter, chain: str) -> set[str]:
    """The chain, and all that it rests on."""
    parents = {info.key: info.parent for info in snapshotter.walk()}
    found: set[str] = set()
    name: str | None = chain
    while name is not None:
        found.add(name)
        name = parents.get(name)
    return found
