"""What to do next for images, snapshots, sandboxes, volumes and plain objects: facts in, a plan out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from core.runtime.ports import SandboxPhase
from reconciler.decide.facts import ImageFacts, SandboxFacts, SandboxSeen, SnapshotFacts, VolumeFacts
from reconciler.decide.freshness import follows, is_due
from reconciler.model.actions import (
    Action,
    Await,
    CheckImage,
    Disown,
    EnsureOwned,
    ForgetImage,
    MakeSandbox,
    MakeVolume,
    Plan,
    PullImage,
    Release,
    Remember,
    RemoveChain,
    RemoveSandbox,
    RemoveVolume,
)
from reconciler.model.identity import FINALIZERS, Key, Kind, RuntimeId, spec_hash
from reconciler.model.kinds.image import ImageSpec
from reconciler.model.kinds.volume import VolumeSpec
from reconciler.model.modules import network_mode
from reconciler.model.objects import Object

_POLL: Final = 5.0
"""Seconds between two looks at what a task of somebody else's still holds: not every end of a task is told to us."""


def _in_use(obj: Object, users: frozenset[Key]) -> tuple[Await, ...]:
    """That wanted objects need `obj`. What the engine made goes all the same: who needs it has it made anew."""
    if not users or obj.manager == "engine":
        return ()
    names = ", ".join(str(key) for key in sorted(users)[:5])
    hint = f"Delete {names} first, or change it so that it does not need this."
    return (Await("InUse", f"still used by {names}", stalled=True, hint=hint),)


def snapshot_name(driver: str, chain: str) -> str:
    """The name of the Snapshot object of a chain in a driver."""
    return f"{driver}-{chain.partition(':')[2][:12]}"


def image_wish(
    spec: Mapping[str, Any],
    default_platform: str,
    archive: str = "",
    record: Mapping[str, Any] | None = None,
    default_driver: str = "overlayfs",
) -> dict[str, str]:
    """What of an image's stored spec decides which bytes it is: recorded with the result, and compared with it.

    `archive`: its path, `|`, and what tells its bytes from others; nothing after the `|` where it is not there now:
    then the image that came from that path, as `record` has it, stays what is wished. An image that names no
    snapshotter stays in the one that it is in, whatever the default becomes.
    """
    held = str((record or {}).get("wish", {}).get("driver", ""))
    wish = {
        "ref": str(spec["ref"]),
        "platform": str(spec.get("platform") or default_platform),
        "driver": str(spec.get("snapshotter") or held or default_driver),
    }
    if archive:
        known = str((record or {}).get("wish", {}).get("archive", ""))
        gone = archive.endswith("|") and known.startswith(archive)
        wish["archive"] = known if gone else archive
    return wish


def plan_image(facts: ImageFacts, spec: ImageSpec, wall: float) -> Plan:
    """Pull it, name its snapshot, keep it, follow its tag; forget its blobs when it goes. `wall`: now, for the tag."""
    key, record = facts.obj.key, facts.obj.record
    if facts.obj.deleted is not None:
        held = _in_use(facts.obj, facts.users)
        return Plan((), held) if held else _image_teardown(facts)
    if record.get("chain") and facts.unpacked and not (facts.has_snapshot_object or facts.snapshot_going):
        return Plan((EnsureOwned(key, snapshot_of(record)),))  # before it becomes another: files never lack a name
    wish = image_wish(facts.obj.spec, facts.default_platform, facts.archive, record, facts.default_driver)
    secret = spec.credentials.secret if spec.credentials is not None else ""
    moved = bool(record.get("next")) and follows(spec)
    if record.get("wish") != wish or not facts.unpacked or moved:
        if facts.secret_missing:
            return Plan(
                (), (Await("SecretMissing", f"secret/{secret} is not there", None, True, f"Apply Secret {secret}."),)
            )
        local, archive = spec.pull_policy == "Never", wish.get("archive", "")
        anew = spec.pull_policy == "Always" or moved
        pull = PullImage(key, wish["ref"], wish["platform"], wish["driver"], secret, local, anew and not local, archive)
        return Plan((pull,), (), "pull" if not record else "tag moved" if moved else "changed")
    if facts.snapshot_going:
        return Plan((), (Await("SnapshotGoing", "the object that names its snapshot is being removed", _POLL),))
    if is_due(spec, record, wall):
        return Plan((*_former(facts), CheckImage(key, wish["ref"], secret)), (), "tag to be asked for")
    return Plan(_former(facts))


def _former(facts: ImageFacts) -> tuple[Disown, ...]:
    return tuple(Disown(one, facts.obj.key) for one in sorted(facts.former))


def _image_teardown(facts: ImageFacts) -> Plan:
    """Its Snapshot object goes with it and takes the files along; where there is none yet, they go from here."""
    key, record = facts.obj.key, facts.obj.record
    if facts.busy:
        return Plan((), (Await("InUse", "a container's root rests on it", _POLL),))
    unnamed = bool(record.get("chain")) and not facts.has_snapshot_object
    chain = (RemoveChain(key, str(record["driver"]), str(record["chain"])),) if unnamed else ()
    return Plan((*chain, ForgetImage(key), Release(key)), (), "deleted")


def snapshot_of(record: Mapping[str, Any]) -> Object:
    """The Snapshot object that names an image's root file system."""
    driver, chain = str(record["driver"]), str(record["chain"])
    spec = {"driver": driver, "chain": chain, "layers": len(record.get("layers", ()))}
    key = Key(Kind.SNAPSHOT, snapshot_name(driver, chain))
    return Object(key, spec=spec, manager="engine", finalizers=frozenset({FINALIZERS[Kind.SNAPSHOT]}))


def plan_snapshot(facts: SnapshotFacts) -> Plan:
    """A Snapshot object only names what its images unpacked; when the last of them goes, so do the files."""
    if facts.obj.deleted is None:
        return Plan()
    if facts.wanted:
        return Plan((Release(facts.obj.key),), (), "still wanted: named anew")
    if facts.busy:
        return Plan((), (Await("InUse", "a container's root rests on it"),))
    spec = facts.obj.spec
    return Plan((RemoveChain(facts.obj.key, str(spec["driver"]), str(spec["chain"])), Release(facts.obj.key)))


def sandbox_hash(spec: Mapping[str, Any]) -> str:
    """Eight hex digits over a sandbox's spec: any change makes another sandbox."""
    return spec_hash(spec)


def plan_sandbox(facts: SandboxFacts) -> Plan:
    """Make the wanted one beside the old; remove the old when nothing is in it any more."""
    key, record = facts.obj.key, facts.obj.record
    if facts.obj.deleted is not None:
        return _sandbox_teardown(facts)
    wanted = sandbox_hash(facts.obj.spec)
    id = str(record.get("id", ""))
    seen = next((one for one in facts.seen if one.id == id), None)
    gone = record.get("made") and (seen is None or seen.phase is not SandboxPhase.READY)
    if not record and (known := _ready(facts, wanted)) is not None:
        adopted = {"id": known.id, "hash": wanted, "attempt": known.attempt, "boot": facts.boot, "made": True}
        return Plan((Remember(key, adopted, "Adopted", known.id),), (), "adopted")
    if not id or record.get("hash") != wanted or record.get("boot") != facts.boot or gone:
        if unknown := tuple(_unknown_runtime(facts)):
            return Plan((), unknown)
        attempt = max(int(record.get("attempt", 0)), *(one.attempt for one in facts.seen), 0) + 1
        id = str(RuntimeId(facts.obj.name, wanted, attempt))
        cause = "created" if attempt == 1 else "spec changed" if record.get("hash") != wanted else "lost"
        begun = {"id": id, "hash": wanted, "attempt": attempt, "boot": facts.boot, "made": None}
        return Plan((Remember(key, begun), *_make(facts, id)), (), cause)
    if seen is None or seen.phase is not SandboxPhase.READY or not record.get("made") or _detached(facts, seen):
        return Plan(tuple(_make(facts, id)))
    return Plan(tuple(RemoveSandbox(old.id) for old in _unused(facts, id)))


def _detached(facts: SandboxFacts, seen: SandboxSeen) -> bool:
    """Whether it should be on a network and is not: somebody took it off, or it was never done."""
    return on_bridge(facts.obj.spec) and seen.attached is None


def on_bridge(spec: Mapping[str, Any]) -> bool:
    """Whether a sandbox's stored spec asks for a network of its own."""
    return network_mode(spec) == "bridge"


def _unknown_runtime(facts: SandboxFacts) -> Iterator[Await]:
    """That the node has no runtime of that name. What an earlier configuration made with it goes on."""
    wanted = facts.obj.spec["runtime"]
    if wanted not in facts.runtimes:
        has = f"this node has no runtime {wanted!r}; it has: {', '.join(facts.runtimes)}"
        hint = "Correct `runtime`, or add it to `runtimes` in the configuration."
        yield Await("RuntimeUnknown", has, None, stalled=True, hint=hint)


def _ready(facts: SandboxFacts, wanted: str) -> SandboxSeen | None:
    """The newest that is whole and of the wanted spec: the store was lost, and it was not."""
    ready = [one for one in facts.seen if one.phase is SandboxPhase.READY and one.hash == wanted]
    whole = [one for one in ready if not _detached(facts, one)]
    return whole[-1] if whole else None


def _make(facts: SandboxFacts, id: str) -> Iterator[Action]:
    yield MakeSandbox(facts.obj.key, id, dict(facts.obj.spec))
    yield Remember(facts.obj.key, {"made": True})


def _unused(facts: SandboxFacts, keep: str) -> Iterator[SandboxSeen]:
    return (one for one in facts.seen if one.id != keep and one.id not in facts.in_use)


def _sandbox_teardown(facts: SandboxFacts) -> Plan:
    if held := _in_use(facts.obj, facts.users):
        return Plan((), held)
    if any(one.id in facts.in_use for one in facts.seen):
        return Plan((), (Await("InUse", "a container's task is still in it", _POLL),))
    return Plan((*(RemoveSandbox(one.id) for one in facts.seen), Release(facts.obj.key)), (), "deleted")


def plan_volume(facts: VolumeFacts, spec: VolumeSpec) -> Plan:
    """Make the folder; keep or remove it in the end, as `retain` says."""
    key = facts.obj.key
    if facts.obj.deleted is None:
        if facts.exists:
            return Plan()
        return Plan((MakeVolume(facts.obj.name, spec.owner, spec.mode),), (), "created")
    if held := _in_use(facts.obj, facts.users):
        return Plan((), held)
    if facts.in_use:
        return Plan((), (Await("InUse", f"still mounted by {', '.join(map(str, sorted(facts.in_use)))}", _POLL),))
    purge = not spec.retain or facts.obj.annotations.get("reconciler/purge") == "true"
    remove = (RemoveVolume(facts.obj.name),) if purge and facts.exists else ()
    return Plan((*remove, Release(key)), (), "deleted")


def plan_plain(obj: Object) -> Plan:
    """Nothing is done on the node for it, so that it has no finalizer: the store removes it when it is deleted."""
    return Plan()
