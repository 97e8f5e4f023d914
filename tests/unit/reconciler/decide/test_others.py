"""What is next for images, snapshots, sandboxes, volumes and secrets."""

from dataclasses import replace
from typing import Any

import pytest

from core.runtime.ports import SandboxPhase
from reconciler.decide.facts import ImageFacts, SandboxFacts, SandboxSeen, SnapshotFacts, VolumeFacts
from reconciler.decide.others import (
    image_wish,
    plan_image,
    plan_plain,
    plan_sandbox,
    plan_snapshot,
    plan_volume,
    sandbox_hash,
    snapshot_name,
)
from reconciler.model.actions import (
    Action,
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
from reconciler.model.identity import Key, Kind
from reconciler.model.kinds.image import ImageSpec
from reconciler.model.kinds.volume import VolumeSpec
from reconciler.model.objects import Object, with_record

WEB = Key(Kind.CONTAINER, "web")
IMAGE = Key(Kind.IMAGE, "base")
REF = "reg.local:5000/web:1"


def kinds(plan: Plan) -> list[type[Action]]:
    """The actions' types, in order."""
    return [type(action) for action in plan.actions]


def image(spec: dict[str, Any] | None = None, **more: Any) -> ImageFacts:
    """An image that was pulled and named."""
    chosen = {"ref": REF, **(spec or {})}
    wish = image_wish({"ref": REF}, "linux/amd64")
    record = {"wish": wish, "driver": "overlayfs", "chain": "sha256:" + "c" * 64, "layers": [{}]}
    obj = Object(
        IMAGE, spec=chosen, record=record, manager=more.pop("manager", "hand"), deleted=more.pop("deleted", None)
    )
    return replace(ImageFacts(obj, "linux/amd64", unpacked=True, has_snapshot_object=True), **more)


def planned(facts: ImageFacts, wall: float = 1000.0) -> Plan:
    """What is next for an image."""
    return plan_image(facts, ImageSpec.model_validate(facts.obj.spec), wall)


def test_an_image_that_is_held_and_named_is_left_alone() -> None:
    assert planned(image()).converged


FOLLOWED = {"update": {"policy": "Digest"}}


def with_changes(facts: ImageFacts, **changes: Any) -> ImageFacts:
    return replace(facts, obj=with_record(facts.obj, changes))


def test_what_a_tag_means_is_asked_for_when_it_is_time() -> None:
    asked = with_changes(image(FOLLOWED), checkedAt=900.0)
    assert planned(asked, 1000.0).converged
    assert planned(asked, 1300.0).actions == (CheckImage(IMAGE, REF, ""),)


def test_a_tag_that_moved_has_the_image_pulled_from_the_registry() -> None:
    moved = with_changes(image(FOLLOWED), checkedAt=900.0, next={"digest": "sha256:" + "d" * 64})
    (pull,) = planned(moved).actions
    assert isinstance(pull, PullImage)
    assert pull.anew
    assert planned(replace(moved, obj=replace(moved.obj, spec={"ref": REF}))).converged


def test_an_image_that_is_always_pulled_is_not_taken_from_what_is_held() -> None:
    (pull,) = planned(image({"pullPolicy": "Always"}, unpacked=False)).actions
    assert isinstance(pull, PullImage)
    assert pull.anew


def test_a_new_image_is_pulled_for_the_nodes_platform() -> None:
    facts = image()
    new = replace(facts, obj=replace(facts.obj, record={}), unpacked=False, has_snapshot_object=False)
    (pull,) = planned(new).actions
    assert pull == PullImage(IMAGE, REF, "linux/amd64", "overlayfs", "", False)


@pytest.mark.parametrize(
    "change", [{"ref": "reg.local:5000/web:2"}, {"platform": "linux/arm64"}, {"snapshotter": "native"}]
)
def test_what_decides_its_bytes_has_it_pulled_anew(change: dict[str, str]) -> None:
    assert kinds(planned(image(change))) == [PullImage]


def test_an_archive_is_read_anew_when_it_changed_and_not_when_it_is_gone() -> None:
    facts = image({"archive": "/srv/web.tar"})
    wish = facts.obj.record["wish"] | {"archive": "/srv/web.tar|7-1"}
    known = replace(facts, obj=replace(facts.obj, record={**facts.obj.record, "wish": wish}))
    assert planned(replace(known, archive="/srv/web.tar|7-1")).converged
    assert planned(replace(known, archive="/srv/web.tar|")).converged
    (pull,) = planned(replace(known, archive="/srv/web.tar|7-2")).actions
    assert pull == PullImage(IMAGE, REF, "linux/amd64", "overlayfs", "", False, False, "/srv/web.tar|7-2")
    assert kinds(planned(replace(known, archive="/srv/other.tar|"))) == [PullImage]
    assert kinds(planned(replace(facts, archive="/srv/web.tar|7-1"))) == [PullImage]


def test_what_is_not_whole_any_more_is_pulled_again() -> None:
    assert kinds(planned(image(unpacked=False))) == [PullImage]


def test_without_its_login_it_waits_for_a_person() -> None:
    (wait,) = planned(image({"credentials": {"secret": "login"}}, unpacked=False, secret_missing=True)).waits
    assert (wait.reason, wait.stalled) == ("SecretMissing", True)


def test_an_image_that_names_no_snapshotter_gets_the_default_one_and_stays_in_it() -> None:
    fresh = image(unpacked=False, default_driver="native")
    fresh = replace(fresh, obj=replace(fresh.obj, record={}))
    (pull,) = planned(fresh).actions
    assert isinstance(pull, PullImage)
    assert pull.driver == "native"
    assert not planned(image(default_driver="native")).actions
    (pull,) = planned(image({"ref": REF, "snapshotter": "native"})).actions
    assert isinstance(pull, PullImage)
    assert pull.driver == "native"


def test_its_files_get_a_name_before_anything_else_is_pulled() -> None:
    assert kinds(planned(image(has_snapshot_object=False))) == [EnsureOwned]
    assert kinds(planned(image({"ref": "reg.local:5000/web:2"}, has_snapshot_object=False))) == [EnsureOwned]


def test_a_name_on_its_way_out_is_waited_for() -> None:
    made = planned(image(has_snapshot_object=False, snapshot_going=True))
    assert not made.actions
    assert made.waits[0].seconds is not None


def test_the_names_of_what_it_was_before_are_let_go() -> None:
    old = Key(Kind.SNAPSHOT, "overlayfs-000000000000")
    assert planned(image(former=frozenset({old}))).actions == (Disown(old, IMAGE),)


def test_an_image_in_use_is_not_deleted_unless_the_engine_made_it() -> None:
    users = frozenset({WEB})
    (wait,) = planned(image(deleted=5.0, users=users)).waits
    assert (wait.reason, wait.stalled) == ("InUse", True)
    assert "container/web" in wait.hint
    assert kinds(planned(image(deleted=5.0, users=users, manager="engine"))) == [ForgetImage, Release]


def test_files_without_a_name_go_with_their_image_when_nothing_rests_on_them() -> None:
    going = image(deleted=5.0, has_snapshot_object=False)
    assert kinds(planned(going)) == [RemoveChain, ForgetImage, Release]
    assert not planned(replace(going, busy=True)).actions


SNAPSHOT = Object(Key(Kind.SNAPSHOT, "overlayfs-cc"), spec={"driver": "overlayfs", "chain": "sha256:cc"})


def test_a_snapshot_is_named_by_driver_and_chain() -> None:
    assert snapshot_name("native", "sha256:" + "ab" * 32) == "native-abababababab"


def test_a_snapshot_stays_until_it_is_deleted_and_nothing_rests_on_it() -> None:
    assert plan_snapshot(SnapshotFacts(SNAPSHOT, True, False)).converged
    going = replace(SNAPSHOT, deleted=5.0)
    assert plan_snapshot(SnapshotFacts(going, True, True)).waits[0].reason == "InUse"
    assert kinds(plan_snapshot(SnapshotFacts(going, True, False))) == [RemoveChain, Release]


def test_a_snapshot_that_an_image_still_has_only_loses_its_name() -> None:
    going = replace(SNAPSHOT, deleted=5.0)
    assert kinds(plan_snapshot(SnapshotFacts(going, True, True, wanted=True))) == [Release]


BOX = {"runtime": "runc", "network": {"mode": "none"}}
HASH = sandbox_hash(BOX)
SANDBOX = Key(Kind.SANDBOX, "box")


def sandbox(*seen: tuple[int, SandboxPhase], record: dict[str, Any] | None = None, **more: Any) -> SandboxFacts:
    """A sandbox whose first one was made in this boot; `seen` on the node by number."""
    known = {"id": f"box-{HASH}-1", "hash": HASH, "attempt": 1, "boot": "boot-1", "made": True, **(record or {})}
    obj = Object(
        SANDBOX, spec=BOX, record=known, manager=more.pop("manager", "hand"), deleted=more.pop("deleted", None)
    )
    found = tuple(SandboxSeen(f"box-{HASH}-{number}", HASH, number, phase) for number, phase in seen)
    return SandboxFacts(obj, "boot-1", found, **more)


READY = SandboxPhase.READY


def test_a_new_sandbox_is_remembered_made_and_remembered_as_made() -> None:
    facts = sandbox()
    plan = plan_sandbox(replace(facts, obj=replace(facts.obj, record={})))
    assert kinds(plan) == [Remember, MakeSandbox, Remember]
    assert plan.cause == "created"


def test_a_sandbox_that_is_there_is_left_alone() -> None:
    assert plan_sandbox(sandbox((1, READY))).converged


@pytest.mark.parametrize("phase", [SandboxPhase.ABSENT, SandboxPhase.HALF_MADE, READY])
def test_one_whose_making_was_interrupted_is_made_under_its_own_number(phase: SandboxPhase) -> None:
    plan = plan_sandbox(sandbox((1, phase), record={"made": None}))
    assert kinds(plan) == [MakeSandbox, Remember]


@pytest.mark.parametrize(
    ("seen", "record", "cause"),
    [
        ((), {}, "lost"),
        (((1, SandboxPhase.STOPPED),), {}, "lost"),
        (((1, READY),), {"boot": "boot-0"}, "lost"),
        (((1, READY),), {"hash": "00000000"}, "spec changed"),
    ],
)
def test_one_that_is_lost_or_otherwise_is_made_beside_it_under_the_next_number(
    seen: tuple[tuple[int, SandboxPhase], ...], record: dict[str, Any], cause: str
) -> None:
    facts = sandbox(*seen, record=record)
    plan = plan_sandbox(facts)
    assert kinds(plan) == [Remember, MakeSandbox, Remember]
    assert plan.cause == cause
    assert isinstance(plan.actions[0], Remember)
    assert with_record(facts.obj, plan.actions[0].changes).record["attempt"] == 2


def test_older_ones_go_when_nothing_is_in_them() -> None:
    facts = sandbox((0, READY), (1, READY))
    assert plan_sandbox(facts).actions == (RemoveSandbox(f"box-{HASH}-0"),)
    assert plan_sandbox(replace(facts, in_use=frozenset({f"box-{HASH}-0"}))).converged


def test_a_sandbox_goes_when_nobody_wants_it_and_nothing_is_in_it() -> None:
    going = sandbox((1, READY), deleted=5.0)
    assert plan_sandbox(replace(going, users=frozenset({WEB}))).waits[0].stalled
    (wait,) = plan_sandbox(replace(going, in_use=frozenset({f"box-{HASH}-1"}))).waits
    assert not wait.stalled
    assert wait.seconds is not None
    assert kinds(plan_sandbox(going)) == [RemoveSandbox, Release]


def test_a_private_sandbox_goes_though_its_container_would_want_it_again() -> None:
    going = sandbox((1, READY), deleted=5.0, manager="engine", users=frozenset({WEB}))
    assert kinds(plan_sandbox(going)) == [RemoveSandbox, Release]


def volume(*, exists: bool, spec: dict[str, Any] | None = None, purge: bool = False, **more: Any) -> Plan:
    """What is next for a volume."""
    marks = {"reconciler/purge": "true"} if purge else {}
    chosen, deleted = spec or {}, more.pop("deleted", None)
    obj = Object(Key(Kind.VOLUME, "data"), spec=chosen, annotations=marks, manager="hand", deleted=deleted)
    return plan_volume(VolumeFacts(obj, exists, **more), VolumeSpec.model_validate(chosen))


def test_a_volume_is_made_once_as_asked() -> None:
    made = volume(exists=False, spec={"owner": "1:2", "mode": "0750"}).actions
    assert made == (MakeVolume("data", (1, 2), 0o750),)
    assert volume(exists=True).converged


@pytest.mark.parametrize(
    ("exists", "retain", "purge", "expected"),
    [
        (True, True, False, [Release]),
        (True, True, True, [RemoveVolume, Release]),
        (True, False, False, [RemoveVolume, Release]),
        (False, False, False, [Release]),
    ],
)
def test_a_deleted_volumes_folder_stays_unless_it_says_otherwise(
    exists: bool, retain: bool, purge: bool, expected: list[type[Action]]
) -> None:
    assert kinds(volume(exists=exists, spec={"retain": retain}, purge=purge, deleted=5.0)) == expected


def test_a_volume_in_use_stays_and_says_by_whom() -> None:
    users = frozenset({WEB})
    (wanted,) = volume(exists=True, deleted=5.0, users=users).waits
    (mounted,) = volume(exists=True, deleted=5.0, in_use=users).waits
    assert (wanted.stalled, mounted.stalled) == (True, False)
    assert "container/web" in wanted.message
    assert "container/web" in mounted.message


def test_a_plain_object_needs_nothing_done() -> None:
    assert plan_plain(Object(Key(Kind.SECRET, "login"))).converged
    assert plan_plain(Object(Key(Kind.SECRET, "login"), deleted=5.0)).converged


def test_a_sandbox_of_a_runtime_that_the_node_lacks_waits_for_a_person_with_the_list() -> None:
    obj = Object(Key(Kind.SANDBOX, "box"), spec={"runtime": "fast", "network": {"mode": "none"}})
    plan = plan_sandbox(SandboxFacts(obj, "boot", runtimes=("crun", "runc")))
    assert not plan.actions
    (wait,) = plan.waits
    assert (wait.reason, wait.stalled) == ("RuntimeUnknown", True)
    assert "no runtime 'fast'; it has: crun, runc" in wait.message
    assert kinds(plan_sandbox(SandboxFacts(obj, "boot", runtimes=("fast",)))) == [Remember, MakeSandbox, Remember]


def test_a_sandbox_that_stands_outlives_its_runtime_in_the_configuration() -> None:
    spec = {"runtime": "fast", "network": {"mode": "none"}}
    wanted = sandbox_hash(spec)
    id = f"box-{wanted}-1"
    record = {"id": id, "hash": wanted, "attempt": 1, "boot": "boot", "made": True}
    obj = Object(Key(Kind.SANDBOX, "box"), spec=spec, record=record)
    seen = (SandboxSeen(id, wanted, 1, SandboxPhase.READY),)
    assert plan_sandbox(SandboxFacts(obj, "boot", seen, runtimes=("runc",))) == Plan()
