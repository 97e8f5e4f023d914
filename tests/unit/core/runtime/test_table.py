"""Which runtime makes what is new, and which one made what is here."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from core import fsio
from core.clock import SystemClock
from core.errors import NotFound, Unsupported
from core.process import Launcher
from core.runtime.drivers import BUILT_IN, Ground, build_table
from core.runtime.oci import Tools
from core.runtime.ports import Exit, NewSandbox, NewTask, Sandboxer, SandboxState, Shim
from core.runtime.table import MARK, Driver, Runtime, RuntimeSpec, RuntimeTable, UnknownRuntime


class Files:
    """A driver that keeps its tasks and sandboxes as folders with an `object.json`, and no more."""

    def __init__(self, state: Path, spec: RuntimeSpec) -> None:
        self.state, self.spec = state, spec
        self.deleted: list[str] = []

    def _write(self, folder: str, id: str, data: object) -> None:
        place = self.state / folder / id
        place.mkdir(parents=True)
        (place / "object.json").write_text(json.dumps(data))

    def create(self, wanted: NewSandbox) -> SandboxState:
        self._write("netns", wanted.id, dict(wanted.object))
        return cast(SandboxState, None)

    def prepare(self, task: NewTask) -> None:
        self._write("bundles", task.id, dict(task.object))

    def delete(self, id: str) -> Exit | None:
        self.deleted.append(id)
        return None

    def tasks(self) -> Iterator[str]:
        yield from (path.name for path in (self.state / "bundles").glob("*"))


def table(state: Path, *specs: RuntimeSpec, built: list[str] | None = None) -> RuntimeTable:
    """Runtimes whose own things, of those that have any, lie in `own/<name>`; `built` gets their names."""

    def build(spec: RuntimeSpec) -> Runtime:
        if built is not None:
            built.append(spec.name)
        files = Files(state, spec)
        return Runtime(spec, cast(Sandboxer, files), cast(Shim, files))

    def has(spec: RuntimeSpec) -> bool:
        return (state / "own" / spec.name).exists()

    return RuntimeTable(state, specs, {"files": Driver(build, has), "more": Driver(build)})


FAST = RuntimeSpec("fast", "files", "/opt/fast")
SLOW = RuntimeSpec("slow", "files", "/opt/slow")


def boxed(runtimes: RuntimeTable, name: str) -> RuntimeTable:
    runtimes.create_sandbox(runtimes.named(name), NewSandbox("box", {"name": "box"}, "none", "box"))
    return runtimes


def task(id: str) -> NewTask:
    return NewTask(id, {}, (), Path("/log"), {"name": "web"}, "box")


def made_by(runtimes: RuntimeTable, id: str) -> RuntimeSpec:
    return runtimes.of_task(id).spec


def test_a_name_that_the_node_lacks_is_refused_with_the_names_that_it_has(tmp_path: Path) -> None:
    with pytest.raises(UnknownRuntime, match="no runtime 'vm'; it has: fast, slow") as caught:
        table(tmp_path, SLOW, FAST).named("vm")
    assert "configuration" in caught.value.hint()


def test_a_task_is_made_by_the_runtime_of_its_sandbox(tmp_path: Path) -> None:
    runtimes = boxed(table(tmp_path, FAST, SLOW), "slow")
    runtimes.prepare(task("one"))
    assert made_by(runtimes, "one") == SLOW
    assert json.loads((tmp_path / "bundles/one/object.json").read_text()) == {"name": "web", MARK: SLOW.to_json()}


def test_a_runtime_that_is_configured_no_more_still_drives_what_it_made(tmp_path: Path) -> None:
    boxed(table(tmp_path, FAST, SLOW), "slow").prepare(task("one"))
    later = table(tmp_path, FAST)
    assert later.names == ("fast",)
    assert made_by(later, "one") == SLOW
    assert later.of_sandbox("box").spec == SLOW
    later.prepare(task("two"))
    assert made_by(later, "two") == SLOW


def test_a_changed_path_counts_for_new_tasks_and_leaves_the_old_ones_as_they_are(tmp_path: Path) -> None:
    boxed(table(tmp_path, SLOW), "slow").prepare(task("one"))
    newer = RuntimeSpec("slow", "files", "/opt/newer")
    later = table(tmp_path, newer)
    later.prepare(task("two"))
    assert [made_by(later, id) for id in ("one", "two")] == [SLOW, newer]


def test_what_is_configured_anew_counts_for_what_is_new_and_leaves_what_is_here_as_it_is(tmp_path: Path) -> None:
    runtimes = boxed(table(tmp_path, SLOW), "slow")
    runtimes.prepare(task("one"))
    newer = RuntimeSpec("slow", "files", "/opt/newer")
    runtimes.configure((newer, FAST))
    runtimes.prepare(task("two"))
    assert [made_by(runtimes, id) for id in ("one", "two")] == [SLOW, newer]
    assert (runtimes.names, runtimes.named("slow").spec) == (("fast", "slow"), newer)
    runtimes.configure((FAST,))
    assert runtimes.names == ("fast",)
    runtimes.prepare(task("three"))
    assert made_by(runtimes, "three") == SLOW


def test_a_name_that_has_another_driver_now_does_not_drive_old_sandboxes(tmp_path: Path) -> None:
    boxed(table(tmp_path, SLOW), "slow")
    later = table(tmp_path, RuntimeSpec("slow", "more"))
    later.prepare(task("one"))
    assert made_by(later, "one") == SLOW


def test_what_bears_no_mark_was_made_by_runc(tmp_path: Path) -> None:
    folder = tmp_path / "bundles/old"
    folder.mkdir(parents=True)
    (folder / "object.json").write_text('{"name": "web"}')
    runtimes = RuntimeTable(tmp_path, (FAST,), {"files": Driver(_runc), "oci": Driver(_runc)})
    assert made_by(runtimes, "old") == RuntimeSpec("runc")


def _runc(spec: RuntimeSpec) -> Runtime:
    nothing = cast(Shim, Files(Path("/nonexistent"), spec))
    return Runtime(spec, cast(Sandboxer, nothing), nothing)


def test_what_was_made_with_a_driver_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "bundles/new"
    folder.mkdir(parents=True)
    (folder / "object.json").write_text(json.dumps({MARK: RuntimeSpec("x", "warp").to_json()}))
    with pytest.raises(Unsupported, match="no driver 'warp'"):
        table(tmp_path, FAST).of_task("new")


@pytest.mark.parametrize("content", ["", "no json", "[]", '{"runtime": {"colour": 1}}'])
def test_a_task_of_which_nothing_says_who_made_it_is_removed_by_every_driver(tmp_path: Path, content: str) -> None:
    runtimes = table(tmp_path, FAST, SLOW)
    folder = tmp_path / "bundles/one"
    folder.mkdir(parents=True)
    (folder / "object.json").write_text(content)
    with pytest.raises(NotFound):
        runtimes.of_task("one")
    runtimes.delete("one")
    assert [cast(Files, runtimes.named(name).shim).deleted for name in runtimes.names] == [["one"], ["one"]]


def test_an_id_that_is_made_again_after_its_end_belongs_to_its_new_maker(tmp_path: Path) -> None:
    runtimes = boxed(table(tmp_path, FAST, SLOW), "slow")
    runtimes.prepare(task("one"))
    assert made_by(runtimes, "one") == SLOW
    runtimes.delete("one")
    (tmp_path / "bundles/one/object.json").write_text(json.dumps({MARK: FAST.to_json()}))
    assert made_by(runtimes, "one") == FAST


def test_a_runtime_is_built_when_it_is_first_used_and_then_kept(tmp_path: Path) -> None:
    built: list[str] = []
    runtimes = table(tmp_path, FAST, SLOW, built=built)
    runtimes.configure((SLOW, FAST))
    assert (runtimes.names, runtimes.specs, built) == (("fast", "slow"), (FAST, SLOW), [])
    boxed(runtimes, "slow").prepare(task("one"))
    assert runtimes.named("slow").shim is runtimes.of_task("one").shim
    assert built == ["slow"]


def test_what_looks_at_everything_builds_one_runtime_and_those_that_have_something_of_their_own(tmp_path: Path) -> None:
    built: list[str] = []
    runtimes = table(tmp_path, FAST, SLOW, RuntimeSpec("other", "more"), built=built)
    (tmp_path / "bundles/found").mkdir(parents=True)
    assert list(runtimes.tasks()) == ["found"]
    assert built == ["fast"]
    (tmp_path / "own/slow").mkdir(parents=True)
    assert list(runtimes.tasks()) == ["found"]
    assert built == ["fast", "slow"]


def test_a_task_without_a_bundle_is_removed_by_those_that_may_have_something_of_it(tmp_path: Path) -> None:
    built: list[str] = []
    runtimes = table(tmp_path, RuntimeSpec("other", "more"), FAST, SLOW, built=built)
    (tmp_path / "own/slow").mkdir(parents=True)
    runtimes.delete("one")
    assert built == ["slow"]
    assert cast(Files, runtimes.named("slow").shim).deleted == ["one"]


def test_a_runtime_that_two_ask_for_at_once_is_built_once(tmp_path: Path) -> None:
    built: list[str] = []
    together = threading.Barrier(8)
    runtimes = table(tmp_path, FAST, built=built)

    def ask() -> Runtime:
        together.wait(10.0)
        return runtimes.named("fast")

    with ThreadPoolExecutor(8) as pool:
        found = {id(one.result()) for one in [pool.submit(ask) for _ in range(8)]}
    assert (len(found), built) == (1, ["fast"])


@pytest.mark.parametrize(
    ("left", "task"),
    [
        ("state/runc/one", "one"),
        ("state/crun/one", "one"),
        ("state/oci-runsc/one_sandbox:one.state", "one"),
        ("state/shim/containerd-shim-runc-v2/nobody/one", "one"),
        ("root/vm/layers/one.img", "one"),
        ("state/exits/one", "one"),
    ],
)
def test_what_a_killed_engine_left_of_a_task_is_seen_whichever_runtime_it_was(
    tmp_path: Path, left: str, task: str
) -> None:
    path = tmp_path / left
    path.parent.mkdir(parents=True)
    path.touch()
    ground = Ground(tmp_path / "state", "/nobody", Launcher(), SystemClock(), "boot", tmp_path / "root")
    assert list(build_table(ground).tasks()) == [task]


def test_what_a_killed_engine_left_half_made_of_a_machines_root_is_swept(tmp_path: Path) -> None:
    half = tmp_path / "root/vm/roots" / f"{fsio.STAGING}x"
    half.mkdir(parents=True)
    build_table(Ground(tmp_path / "state", "/nobody", Launcher(), SystemClock(), "boot", tmp_path / "root")).sweep()
    assert not half.exists()


def test_what_is_kept_by_a_runtime_that_was_not_used_is_collected(tmp_path: Path) -> None:
    root = tmp_path / "root/vm/roots/kept.erofs"
    root.parent.mkdir(parents=True)
    root.write_bytes(b"1234")
    table = build_table(Ground(tmp_path / "state", "/nobody", Launcher(), SystemClock(), "boot", tmp_path / "root"))
    assert table.collect(set(), dry=False) == {"kept": 4}
    assert not root.exists()


def test_some_are_there_without_any_configuration_and_can_be_configured_otherwise(tmp_path: Path) -> None:
    ground = Ground(tmp_path, "/nobody", Launcher(), SystemClock(), "boot")
    assert build_table(ground).names == ("crun", "gvisor", "runc", "runc-v2", "vm", "wasm")
    assert {spec.name for spec in BUILT_IN} == {"crun", "gvisor", "runc", "runc-v2", "vm", "wasm"}
    own = RuntimeSpec("crun", path="/opt/crun/bin/crun")
    assert own in build_table(ground, [own, RuntimeSpec("fast", path="/opt/x")]).specs


@pytest.mark.parametrize(
    ("program", "folder", "unbegun"),
    [
        ("runc", "runc", ":[2:INIT]"),
        ("/usr/sbin/runc", "runc", ":[2:INIT]"),
        ("/usr/bin/crun", "crun", "crun"),
        ("/opt/exits", "oci-exits", "exits"),
        ("/opt/a-program-of-a-long-name", "oci-a-program-of-a-long-name", "a-program-of-a-"),
    ],
)
def test_a_program_has_a_folder_of_its_own_below_the_state_folder(program: str, folder: str, unbegun: str) -> None:
    tools = Tools(program)
    assert (tools.own_folder, tools.unbegun) == (folder, unbegun)
