"""What the tests of the WASM driver stand on: modules written as text, a state folder, an end without rest."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from wasmtime import wat2wasm

from core import cgroups, proc
from core.clock import SystemClock
from core.mounts import MountSpec
from core.process import Launcher
from core.runtime import node, spec
from core.runtime.ports import NewTask
from core.runtime.resourcing import Resources
from core.runtime.wasm import WasmShim
from tests.conformance.shim_ground import Remains

PREVIEW: Final = "wasi_snapshot_preview1"
IMPORTS: Final = f"""
 (import "{PREVIEW}" "proc_exit" (func $exit (param i32)))
 (import "{PREVIEW}" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
 (import "{PREVIEW}" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
 (import "{PREVIEW}" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
 (import "{PREVIEW}" "path_open"
  (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
 (import "{PREVIEW}" "environ_get" (func $environ_get (param i32 i32) (result i32)))
 (import "{PREVIEW}" "args_get" (func $args_get (param i32 i32) (result i32)))
 (import "{PREVIEW}" "random_get" (func $random_get (param i32 i32) (result i32)))
"""
FUNCTIONS: Final = """
 (func $say (param $at i32) (param $size i32)
  (i32.store (i32.const 16) (local.get $at)) (i32.store (i32.const 20) (local.get $size))
  (drop (call $fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24))))
 (func $sleep (param $milliseconds i64)
  (i64.store (i32.const 256) (i64.const 0)) (i32.store8 (i32.const 264) (i32.const 0))
  (i32.store (i32.const 272) (i32.const 1))
  (i64.store (i32.const 280) (i64.mul (local.get $milliseconds) (i64.const 1000000)))
  (i64.store (i32.const 288) (i64.const 0)) (i32.store16 (i32.const 296) (i32.const 0))
  (drop (call $poll (i32.const 256) (i32.const 320) (i32.const 1) (i32.const 24))))
"""
FOREVER: Final = "(loop (call $sleep (i64.const 1000000)) (br 0))"


def program(body: str, data: str = "", pages: int = 1) -> bytes:
    """A WASI module that does `body` ($say, $sleep, $exit and more are there); `data` lies at 1024."""
    text = "".join(f"\\{byte:02x}" for byte in data.encode())
    return bytes(
        wat2wasm(
            f'(module {IMPORTS} (memory (export "memory") {pages}) (data (i32.const 1024) "{text}") {FUNCTIONS}'
            f' (func (export "_start") (local $i i32) {body}))'
        )
    )


def say(text: str) -> bytes:
    """A module that writes `text` and ends."""
    return program(f"(call $say (i32.const 1024) (i32.const {len(text.encode())}))", text)


SCRIPTS: Final[Mapping[tuple[str, ...], bytes]] = {
    ("true",): program(""),
    ("sleep", "1000"): program(FOREVER),
    ("echo", "begun"): say("begun\n"),
    ("sh", "-c", "while :; do echo x; sleep 0.01; done"): program(
        "(loop (call $say (i32.const 1024) (i32.const 2)) (call $sleep (i64.const 10)) (br 0))", "x\n"
    ),
    ("sh", "-c", "i=0; while test $i -lt 20000; do i=$((i+1)); done; sleep 1000"): program(
        "(loop (local.set $i (i32.add (local.get $i) (i32.const 1)))"
        f" (br_if 0 (i32.lt_u (local.get $i) (i32.const 500000000)))) {FOREVER}"
    ),
    **{("sh", "-c", f"exit {code}"): program(f"(call $exit (i32.const {code}))") for code in (0, 1, 7, 126, 255)},
}
"""The suite's commands, as modules."""


class WasmGround(Remains):
    """One instance: its own state folder, and its own control group where we are root."""

    def __init__(self, folder: Path) -> None:
        self.open(folder, f"/reconciler-{secrets.token_hex(4)}")

    def open(self, folder: Path, group: str) -> None:
        """Look at the node and build the driver."""
        self.group = group
        self.state, self.logs, self.root = folder / "state", folder / "logs", folder / "root"
        self.root.mkdir(exist_ok=True)
        self.cache = folder / "cache"
        self.found = cgroups.hierarchies()
        self.node = node.read_node()
        self.boot = proc.boot_id()
        self.shim = self.again()

    def again(self) -> WasmShim:
        """The driver of a new engine, with a helpers' group of its own where we are root."""
        tracking = self.found.tracking if os.geteuid() == 0 else None
        helpers = cgroups.make(tracking, f"{self.group}/helpers-{secrets.token_hex(4)}") if tracking else None
        return WasmShim(self.state, self.group, Launcher(helpers), SystemClock(), self.boot, self.cache)

    def task(self, *args: str, id: str = "one", **wanted: object) -> NewTask:
        """A task; `module`: the bytes to run, else those of `SCRIPTS`; `memory`, or fields of Wanted and NewTask."""
        module = wanted.pop("module", None) or SCRIPTS.get(args)
        words = args or ("module",)
        if isinstance(module, bytes):
            (self.root / words[0]).write_bytes(module)
        flags = {name: bool(wanted.pop(name, False)) for name in ("stdin", "terminal")}
        log_limit = wanted.pop("log_limit", 64 << 20)
        limits = {name: wanted.pop(name) for name in ("memory", "pids", "cpu") if name in wanted}
        user = wanted.pop("user", spec.User(os.getuid(), os.getgid()))
        assert isinstance(user, spec.User)
        whole = spec.Wanted(
            words,
            f"{self.group}/box/{id}",
            resources=replace(Resources(), **limits),  # type: ignore[arg-type]  # by name, in tests
            user=user,
            **wanted,  # type: ignore[arg-type]  # by name, in tests
        )
        rootfs = [MountSpec("bind", str(self.root), ("bind", "ro"))]
        log = self.logs / (id[:50].replace("/", "_") or "x")
        built = spec.build(whole, self.node).spec
        assert isinstance(log_limit, int)
        return NewTask(id, built, rootfs, log, {"name": id}, "box", **flags, log_limit=log_limit)
