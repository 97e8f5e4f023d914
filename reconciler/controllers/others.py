"""Images, snapshots, sandboxes, volumes, secrets and the node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from core.runtime.ports import SandboxPhase, TaskPhase
from reconciler.decide.attempts import Memory
from reconciler.decide.facts import Facts, ImageFacts, Now, PlainFacts, SandboxFacts, SnapshotFacts, VolumeFacts
from reconciler.decide.freshness import stale
from reconciler.decide.others import (
    image_wish,
    on_bridge,
    plan_image,
    plan_plain,
    plan_sandbox,
    plan_snapshot,
    plan_volume,
    snapshot_name,
)
from reconciler.decide.references import volumes_of
from reconciler.decide.summary import Detail
from reconciler.decide.switching import is_live
from reconciler.engine.observe import Eyes
from reconciler.model.actions import Plan
from reconciler.model.identity import Key, Kind
from reconciler.model.kinds.image import ImageSpec
from reconciler.model.kinds.volume import VolumeSpec
from reconciler.model.objects import Object
from reconciler.model.outcome import Fault

Users = Callable[[Key], frozenset[Key]]


def _wanted_users(eyes: Eyes, users: frozenset[Key]) -> frozenset[Key]:
    """Those of the users that are not on their way out themselves."""
    found = ((key, eyes.store.get(key)) for key in users if key.kind is Kind.CONTAINER)
    return frozenset(key for key, obj in found if obj is not None and obj.deleted is None)


class ImageController:
    """Images: held, unpacked, named by a Snapshot."""

    kind = Kind.IMAGE
    creates = (Kind.SNAPSHOT,)
    reads = (Kind.SECRET, Kind.CONTAINER)

    def __init__(self, eyes: Eyes, users: Users) -> None:
        self._eyes = eyes
        self._users = users

    def facts(self, obj: Object, fault: Fault | None) -> ImageFacts:
        """What the record says, and whether it is still true on disk."""
        record = obj.record
        driver, chain = str(record.get("driver", "")), str(record.get("chain", ""))
        unpacked = bool(chain) and self._eyes.committed(driver, chain) and self._eyes.held(record)
        name = Key(Kind.SNAPSHOT, snapshot_name(driver, chain))
        snapshot = self._eyes.store.get(name) if chain else None
        owned = self._eyes.store.owned(obj.key) if unpacked else ()
        unnamed = obj.deleted is not None and snapshot is None and self._eyes.committed(driver, chain)
        credentials = obj.spec.get("credentials", {}).get("secret")
        return ImageFacts(
            obj=obj,
            default_platform=self._eyes.node.platform,
            default_driver=self._eyes.node.default_snapshotter,
            archive=self._eyes.archive(obj.spec),
            unpacked=unpacked,
            has_snapshot_object=snapshot is not None and obj.key in snapshot.owners and snapshot.deleted is None,
            snapshot_going=snapshot is not None and snapshot.deleted is not None,
            busy=unnamed and self._eyes.has_children(driver, chain),
            former=frozenset(one.key for one in owned if one.kind is Kind.SNAPSHOT and one.key != name),
            users=_wanted_users(self._eyes, self._users(obj.key)) if obj.deleted is not None else frozenset(),
            secret_missing=bool(credentials) and self._eyes.store.get(Key(Kind.SECRET, credentials)) is None,
            progress=self._eyes.progress(obj.key),
            fault=fault,
        )

    def plan(self, facts: Facts, now: Now) -> Plan:
        """Pull, name, keep, forget."""
        assert isinstance(facts, ImageFacts)
        return plan_image(facts, ImageSpec.model_validate(facts.obj.spec), now.wall)

    def detail(self, facts: Facts, plan: Plan) -> Detail:
        """What it is: digest, platform, layers; or how far the fetching is."""
        assert isinstance(facts, ImageFacts)
        record = facts.obj.record
        wish = image_wish(facts.obj.spec, facts.default_platform, facts.archive, record, facts.default_driver)
        ready = facts.unpacked and record.get("wish") == wish
        if not ready:
            return Detail(False, "NotPulled", "not pulled and unpacked yet", dict(facts.progress))
        names = ("digest", "mediaType", "platform", "size", "layers", "pulledFrom", "bytesFetched")
        fields = {name: record[name] for name in names if name in record}
        fields["snapshot"] = snapshot_name(str(record["driver"]), str(record["chain"]))
        old = stale(ImageSpec.model_validate(facts.obj.spec), record)
        return Detail(True, "Unpacked", f"{record['digest']} for {record['platform']}", fields, old)


class SnapshotController:
    """Snapshots: named by their images, removed with the last."""

    kind = Kind.SNAPSHOT
    creates = ()
    reads = (Kind.IMAGE,)

    def __init__(self, eyes: Eyes) -> None:
        self._eyes = eyes

    def facts(self, obj: Object, fault: Fault | None) -> SnapshotFacts:
        """Whether it is there, and who rests on it."""
        driver, chain = str(obj.spec["driver"]), str(obj.spec["chain"])
        exists = self._eyes.committed(driver, chain)
        dying = obj.deleted is not None
        return SnapshotFacts(
            obj=obj,
            exists=exists,
            busy=dying and exists and self._eyes.has_children(driver, chain),
            wanted=dying and any(_is_from(image, driver, chain) for image in self._eyes.store.list(Kind.IMAGE)),
            usage=obj.status.get("usage") or (self._eyes.usage(driver, chain) if exists and not dying else {}),
            fault=fault,
        )

    def plan(self, facts: Facts, now: Now) -> Plan:
        """Nothing, until the end."""
        assert isinstance(facts, SnapshotFacts)
        return plan_snapshot(facts)

    def detail(self, facts: Facts, plan: Plan) -> Detail:
        """Its use of the disk."""
        assert isinstance(facts, SnapshotFacts)
        word = "Committed" if facts.exists else "Missing"
        return Detail(facts.exists, word, word.lower(), {"usage": dict(facts.usage)})


def _is_from(image: Object, driver: str, chain: str) -> bool:
    record = image.record
    return image.deleted is None and (record.get("driver"), record.get("chain")) == (driver, chain)


_TO_BE: Final = (TaskPhase.PREPARED, TaskPhase.HALF_MADE)


class SandboxController:
    """Sandboxes: one of the current spec, older ones while containers are in them."""

    kind = Kind.SANDBOX
    creates = ()
    reads = (Kind.CONTAINER,)

    def __init__(self, eyes: Eyes, users: Users) -> None:
        self._eyes = eyes
        self._users = users

    def facts(self, obj: Object, fault: Fault | None) -> SandboxFacts:
        """What of it is on the node, and who is in it."""
        seen = self._eyes.sandboxes(obj.name)
        users = self._users(obj.key)
        in_use: frozenset[str] = frozenset()
        if obj.deleted is not None or len(seen) > 1:
            # Of all containers: one that is on its way to another sandbox does not name this one any more.
            in_use = self._eyes.joined(filter(self._has_tasks, self._eyes.store.list(Kind.CONTAINER)))
        wanted = _wanted_users(self._eyes, users) if obj.deleted is not None else frozenset()
        return SandboxFacts(obj, self._eyes.node.boot, seen, in_use, wanted, self._eyes.node.runtime_names, fault)

    def _has_tasks(self, container: Object) -> bool:
        """Whether a task of the container lives, or is about to; the remains of one that ended need no sandbox."""
        return any(is_live(task) or task.phase in _TO_BE for task in self._eyes.tasks(container.name))

    def plan(self, facts: Facts, now: Now) -> Plan:
        """Make, replace, remove."""
        assert isinstance(facts, SandboxFacts)
        return plan_sandbox(facts)

    def detail(self, facts: Facts, plan: Plan) -> Detail:
        """Its id and where its namespaces are."""
        assert isinstance(facts, SandboxFacts)
        id = str(facts.obj.record.get("id", ""))
        seen = next((one for one in facts.seen if one.id == id), None)
        ready = seen is not None and seen.phase is SandboxPhase.READY and bool(facts.obj.record.get("made"))
        ready = ready and (seen is None or seen.attached is not None or not on_bridge(facts.obj.spec))
        fields: dict[str, Any] = {"id": id, "state": "Ready" if ready else "Waiting"}
        if seen is not None and seen.pid is not None and seen.phase is SandboxPhase.READY:
            fields["pid"] = seen.pid
        if seen is not None and seen.attached is not None:
            ports = facts.obj.spec.get("network", {}).get("ports", ())
            fields |= {"ip": seen.attached.addresses[0].partition("/")[0], "network": seen.attached.network}
            fields["ports"] = [dict(port) for port in ports]
        return Detail(ready, "Made" if ready else "NotMade", id if ready else "not made yet", fields)


class VolumeController:
    """Volumes: folders."""

    kind = Kind.VOLUME
    creates = ()
    reads = (Kind.CONTAINER,)

    def __init__(self, eyes: Eyes, users: Users) -> None:
        self._eyes = eyes
        self._users = users

    def facts(self, obj: Object, fault: Fault | None) -> VolumeFacts:
        """Whether the folder is there, and who mounts it."""
        path = self._eyes.node.volumes / obj.name
        if obj.deleted is None:
            return VolumeFacts(obj, path.is_dir(), path=str(path), fault=fault)
        users = _wanted_users(self._eyes, self._users(obj.key))
        in_use = frozenset(one.key for one in self._eyes.store.list(Kind.CONTAINER) if self._mounts(one, obj.name))
        return VolumeFacts(obj, path.is_dir(), users, in_use, str(path), fault)

    def _mounts(self, container: Object, volume: str) -> bool:
        """Whether a task of the container is here that was made with the volume."""
        here = self._eyes.task_ids(container.name)
        memory = Memory.of(container.record)
        made = (one for one in (memory.current, memory.previous) if one is not None)
        return any(one.id(container.name) in here and volume in volumes_of(one.spec) for one in made)

    def plan(self, facts: Facts, now: Now) -> Plan:
        """Make, keep, remove."""
        assert isinstance(facts, VolumeFacts)
        return plan_volume(facts, VolumeSpec.model_validate(facts.obj.spec))

    def detail(self, facts: Facts, plan: Plan) -> Detail:
        """Where it is."""
        assert isinstance(facts, VolumeFacts)
        return Detail(facts.exists, "Made" if facts.exists else "NotMade", facts.path, {"path": facts.path})


class PlainController:
    """A kind with nothing to do on the node; `describe` gives its status fields."""

    creates: tuple[Kind, ...] = ()
    reads: tuple[Kind, ...] = ()

    def __init__(self, kind: Kind, describe: Callable[[], Mapping[str, Any]]) -> None:
        self.kind = kind
        self._describe = describe

    def facts(self, obj: Object, fault: Fault | None) -> PlainFacts:
        """The object itself."""
        return PlainFacts(obj, fault, self._describe())

    def plan(self, facts: Facts, now: Now) -> Plan:
        """Nothing, until the end."""
        return plan_plain(facts.obj)

    def detail(self, facts: Facts, plan: Plan) -> Detail:
        """It is there: that is all."""
        assert isinstance(facts, PlainFacts)
        return Detail(True, "Stored", "", dict(facts.detail))
