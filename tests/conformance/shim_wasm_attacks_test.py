"""Hostile modules, damaged caches, killed monitors and engines: each costs its own task and nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from wasmtime import wat2wasm

from core import cgroups, proc
from core.clock import SystemClock
from core.errors import Invalid, OverLimit
from core.runtime import logs, wasm_cache
from core.runtime.ports import MonitorLost, TaskPhase
from core.runtime.spec import Mount, User
from core.runtime.wasm_groups import ENGINE_MEMORY
from tests.conformance.shim_contract import eventually, run, running, said
from tests.conformance.shim_wasm_ground import IMPORTS, SCRIPTS, WasmGround, program, say
from tests.killing import killed_in_a_call

NOT_CAPABLE: Final = ("63", "76")
"""ERRNO_PERM and ERRNO_NOTCAPABLE: what leads out of a folder is answered with one of them."""
BAD_DESCRIPTOR: Final = "08"


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[WasmGround]:
    ground = WasmGround(tmp_path)
    yield ground
    ground.end()


def opening(*paths: str) -> bytes:
    """A module that opens each path below its first folder, and says with which error, as two digits."""
    data, body = "", ""
    for path in paths:
        body += f"""
         (local.set $i (call $open (i32.const 3) (i32.const 1) (i32.const {1024 + len(data)}) (i32.const {len(path)})
          (i32.const 0) (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 512)))
         (i32.store8 (i32.const 600) (i32.add (i32.const 48) (i32.div_u (local.get $i) (i32.const 10))))
         (i32.store8 (i32.const 601) (i32.add (i32.const 48) (i32.rem_u (local.get $i) (i32.const 10))))
         (i32.store8 (i32.const 602) (i32.const 10)) (call $say (i32.const 600) (i32.const 3))"""
        data += path
    return program(body, data)


def test_an_endless_loop_ends_within_two_seconds_of_a_stop(ground: WasmGround) -> None:
    shim = running(ground, module=program("(loop (br 0))"))
    began = time.monotonic()
    shim.kill("one", signal.SIGTERM)
    exit = shim.wait("one", 10)
    assert time.monotonic() - began < 2.0
    assert exit is not None
    assert exit.code == 143


def test_memory_grows_to_the_limit_and_no_further(ground: WasmGround) -> None:
    body = """(if (i32.ne (memory.grow (i32.const 65535)) (i32.const -1)) (then (call $exit (i32.const 9))))
     (if (i32.eq (memory.grow (i32.const 200)) (i32.const -1)) (then (call $exit (i32.const 8))))
     (if (i32.ne (memory.grow (i32.const 100)) (i32.const -1)) (then (call $exit (i32.const 7))))"""
    assert run(ground, module=program(body), memory=16 << 20).code == 0


def test_a_module_that_needs_more_memory_than_it_may_have_does_not_run(ground: WasmGround) -> None:
    assert run(ground, module=program("", pages=1000), memory=16 << 20).code == 134
    assert b"memory" in ground.task("x").log.read_bytes()


def test_without_folders_nothing_can_be_opened(ground: WasmGround) -> None:
    text = said(ground, module=opening("..", "/proc/self/root", "etc/passwd"))
    assert text.split() == [BAD_DESCRIPTOR] * 3


def test_nothing_leads_out_of_a_folder(ground: WasmGround, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "up").symlink_to("..")
    (folder / "away").symlink_to("/etc/passwd")
    (folder / "magic").symlink_to("/proc/self/root/etc/passwd")
    (folder / "inside").write_text("x")
    paths = ("..", "/proc/self/root", "up/state", "away", "magic", "inside")
    text = said(ground, module=opening(*paths), mounts=[Mount("/given", source=str(folder))])
    *out, inside = text.split()
    assert inside == "00"
    assert len(out) == 5
    assert all(code in NOT_CAPABLE for code in out), out


def test_a_million_writes_fill_neither_disk_nor_memory(ground: WasmGround) -> None:
    body = """(loop (call $say (i32.const 1024) (i32.const 2)) (local.set $i (i32.add (local.get $i) (i32.const 1)))
     (br_if 0 (i32.lt_u (local.get $i) (i32.const 1000000))))"""
    running(ground, module=program(body, "x\n"), log_limit=1 << 20)
    monitor = ground.shim.state("one").monitor
    most = 0
    deadline = time.monotonic() + 60
    while ground.shim.wait("one", 0.05) is None:
        assert time.monotonic() < deadline
        if monitor is not None and monitor.alive(ground.boot):
            most = max(most, proc.pss_bytes(monitor.pid))
    assert ground.task("x").log.stat().st_size <= 1 << 20
    assert 0 < most < 24 << 20


def test_random_bytes_beyond_its_memory_end_the_module_alone(ground: WasmGround) -> None:
    shim = running(ground, id="other")
    body = "(call $exit (call $random_get (i32.const 0) (i32.const 2147483647)))"
    exit = run(ground, module=program(body))
    assert exit.code in (134, 21)  # a trap, or ERRNO_FAULT
    assert shim.state("other").phase is TaskPhase.RUNNING


def test_a_module_of_a_hundred_thousand_functions_is_compiled_or_refused_in_time(ground: WasmGround) -> None:
    functions = "(func (param i32) (result i32) local.get 0 i32.const 7 i32.mul)" * 100_000
    bomb = bytes(wat2wasm(f'(module {functions} (memory (export "memory") 1) (func (export "_start")))'))
    ground.shim.prepare(ground.task(module=bomb))
    began = time.monotonic()
    with contextlib.suppress(OverLimit):
        ground.shim.create("one")
    assert time.monotonic() - began < wasm_cache.COMPILE_SECONDS + 10


@pytest.mark.parametrize(
    "module",
    [
        b"",
        b"#!/bin/sh\n",
        b"\0asm",
        b"\0asm\x01\0\0\0\xff\xff",
        b"\0asm\x02\0\0\0",
        bytes(wat2wasm("(module)")),
        bytes(wat2wasm('(module (import "env" "socket" (func)) (func (export "_start")))')),
        bytes(wat2wasm(f'(module {IMPORTS} (import "{"wasi_snapshot_preview1"}" "no" (func)))')),
    ],
)
def test_what_is_no_command_is_refused_with_a_reason_and_a_hint(ground: WasmGround, module: bytes) -> None:
    task = ground.task("odd")
    (ground.root / "odd").write_bytes(module)
    ground.shim.prepare(task)
    with pytest.raises(Invalid) as caught:
        ground.shim.create("one")
    assert caught.value.hint()
    assert ground.shim.state("one").phase is TaskPhase.HALF_MADE


def test_a_fault_of_the_engine_costs_one_module(ground: WasmGround) -> None:
    running(ground, id="other")
    shim = running(ground)
    os.kill(shim.pids("one")[0], signal.SIGABRT)
    exit = shim.wait("one", 10)
    assert exit is not None
    assert exit.code == 134
    assert shim.state("other").phase is TaskPhase.RUNNING


def test_a_killed_monitor_is_told_and_leaves_nothing(ground: WasmGround) -> None:
    shim = running(ground)
    state = shim.state("one")
    assert state.monitor is not None
    state.monitor.signal(signal.SIGKILL)
    eventually(lambda: shim.state("one").phase is TaskPhase.LOST)
    with pytest.raises(MonitorLost):
        shim.wait("one", 0)
    shim.delete("one")
    assert ground.leftovers() == []


def test_a_compiled_module_is_used_again_and_a_damaged_one_is_not(ground: WasmGround) -> None:
    assert run(ground, "true").code == 0
    (kept,) = ground.cache.iterdir()
    made = kept.stat().st_ino
    ground.shim.delete("one")
    assert run(ground, "true").code == 0
    assert [one.stat().st_ino for one in ground.cache.iterdir()] == [made]
    ground.shim.delete("one")
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 0xFF
    kept.write_bytes(data)
    assert run(ground, "true").code == 0
    assert [one.name for one in ground.cache.iterdir()] == [kept.name]
    assert kept.read_bytes() != data


def test_the_cache_is_bounded(ground: WasmGround, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wasm_cache, "MOST_BYTES", 1)
    for number in range(3):
        assert run(ground, id=f"task-{number}", module=say(f"{number}\n")).code == 0
    assert list(ground.cache.iterdir()) == []


def test_a_renamed_log_is_begun_anew(ground: WasmGround) -> None:
    shim = running(ground, *next(words for words in SCRIPTS if "echo x" in words[-1]))
    log = ground.task("x").log
    eventually(lambda: log.exists() and log.stat().st_size > 0)
    assert logs.rotate(log, lambda: shim.reopen_log("one"), max_size=1, keep=3)
    eventually(lambda: log.exists() and log.stat().st_size > 0)
    assert log.with_name(f"{log.name}.1").stat().st_size > 0


COMPONENT: Final = """(component
 (import "wasi:cli/exit@0.2.0" (instance $exit (export "exit" (func (param "status" (result))))))
 (core func $exit (canon lower (func $exit "exit")))
 (core module $m (import "h" "exit" (func $exit (param i32))) (func (export "run") (result i32) {body}))
 (core instance $i (instantiate $m (with "h" (instance (export "exit" (func $exit))))))
 (func $run (result (result)) (canon lift (core func $i "run")))
 (instance $r (export "run" (func $run)))
 (export "wasi:cli/run@0.2.0" (instance $r)))"""


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("i32.const 0", 0),
        ("i32.const 1", 1),
        ("(call $exit (i32.const 1)) i32.const 0", 1),
        ("(call $exit (i32.const 0)) i32.const 1", 0),
        ("unreachable", 134),
    ],
)
def test_a_component_is_run_as_a_command(ground: WasmGround, body: str, code: int) -> None:
    assert run(ground, module=bytes(wat2wasm(COMPONENT.format(body=body)))).code == code


_MAKER = """
import sys
from pathlib import Path
from tests.conformance.shim_wasm_ground import WasmGround
ground = WasmGround.__new__(WasmGround)
ground.open(Path(sys.argv[1]), sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
task = ground.task("sleep", "1000")
ground.shim.prepare(task)
ground.shim.create("one")
ground.shim.start("one")
ground.shim.delete("one")
print("done", flush=True)
"""


def test_an_engine_killed_anywhere_in_making_and_removing_leaves_nothing(ground: WasmGround) -> None:
    run(ground, "true")
    ground.shim.delete("one")
    for step in range(6):
        said, _ = killed_in_a_call(_MAKER, ground.state.parent, ground.group, seconds=step * 0.08)
        assert said == b"ready\n"
        for hierarchy in ground.found.all():  # as the next engine does before anything else
            for group in (hierarchy / ground.group.lstrip("/")).glob("helpers-*"):
                cgroups.end(group, SystemClock())
        ground.shim = ground.again()
        ground.shim.sweep()
        ground.shim.delete("one")
        eventually(lambda: not ground.processes())
        assert ground.leftovers() == []


def test_what_runs_as_root_keeps_only_what_files_need(ground: WasmGround) -> None:
    pid = running(ground).pids("one")[0]
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert int(status["CapEff"], 16) & ~0b11111 == 0
    assert status["NoNewPrivs"] == "1"
    assert "0" in Path(f"/proc/{pid}/limits").read_text().partition("Max core file size")[2].split()[:1]


@pytest.mark.root
def test_it_runs_as_the_user_that_is_asked_for_within_its_group(ground: WasmGround) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    shim = running(ground, user=User(1000, 1001, (1002,)), memory=32 << 20)
    pid = shim.pids("one")[0]
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert status["Uid"].split() == ["1000"] * 4
    assert status["Gid"].split() == ["1001"] * 4
    assert int(status["CapEff"], 16) == 0
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    assert f"{ground.group}/box/one" in Path(f"/proc/{pid}/cgroup").read_text()
    memory = ground.found.v1.get("memory")
    if memory is not None:
        limit = memory / ground.group.lstrip("/") / "box/one/memory.limit_in_bytes"
        assert cgroups.read_int(limit) == (32 << 20) + ENGINE_MEMORY
        shim.update("one", {"memory": {"limit": 64 << 20, "swap": 64 << 20}})
        assert cgroups.read_int(limit) == (64 << 20) + ENGINE_MEMORY
