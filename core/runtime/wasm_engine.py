"""The WASM engine (wasmtime): compiles a module to a file, and loads such a file to be run. Only monitors import this.

Rules of this file: a module sees what it is given and nothing else: its arguments, its environment, the folders that
are opened for it, a null stdin. There is no network. Modules are WASI preview 1, components are WASI 0.2 commands
(`wasi:cli/run`). What is loaded was compiled by this very version with the same settings, and its bytes are verified
by who hands it over: loading trusts them.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import wasmtime
from wasmtime import component

PAGE: Final = 1 << 16
TRAPPED: Final = 134
"""The exit code after a trap: as of a program that aborts."""
COMPILE_MEMORY: Final = 512 << 20
_PREVIEW_1: Final = "wasi_snapshot_preview1"
_RUN: Final = "wasi:cli/run@0."
_MANY: Final = 1 << 20


class Refused(Exception):
    """The module cannot be run: one line that says why."""


def _engine() -> wasmtime.Engine:
    return wasmtime.Engine(wasmtime.Config())


def is_component(head: bytes) -> bool:
    """Whether the first eight bytes are those of a component (not of a core module)."""
    return head[6:8] == b"\x01\x00"


def main_compile() -> None:
    """`SOURCE TARGET`: compile, within `COMPILE_MEMORY`; complains on stderr and ends with 1 when it cannot be."""
    resource.setrlimit(resource.RLIMIT_DATA, (COMPILE_MEMORY, COMPILE_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source, target = sys.argv[1:3]
    with open(source, "rb") as file:
        data = file.read()
    try:
        kind = component.Component if is_component(data[:8]) else wasmtime.Module
        made = kind(_engine(), data).serialize()
    except wasmtime.WasmtimeError as error:
        sys.exit(_plain(error))
    with open(target, "wb") as file:
        file.write(made)


def load(wanted: Mapping[str, Any], path: str) -> Callable[[], int]:
    """The compiled file at `path`, mapped and linked; returns what runs it and gives its exit code.

    `wanted`: `bundle` (where the module itself lies), `args`, `env` (`NAME=value`), `memory` (bytes, None: no limit),
    `preopens` (host path, guest path, whether it may be written). Raises `Refused`.
    """
    engine = _engine()
    store = wasmtime.Store(engine)
    if wanted["memory"] is not None:
        store.set_limits(memory_size=wanted["memory"], table_elements=_MANY)
    try:
        store.set_wasi(_wasi(wanted))
        with open(f"{wanted['bundle']}/module.wasm", "rb") as file:
            head = file.read(8)
        if is_component(head):
            return _component(store, component.Component.deserialize_file(engine, path))
        return _module(store, wasmtime.Module.deserialize_file(engine, path))
    except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
        raise Refused(_plain(error)) from error


def _wasi(wanted: Mapping[str, Any]) -> wasmtime.WasiConfig:
    wasi = wasmtime.WasiConfig()
    wasi.argv = wanted["args"]
    wasi.env = [pair.partition("=")[::2] for pair in wanted["env"]]
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    for host, guest, writable in wanted["preopens"]:
        try:
            wasi.preopen_dir(host, guest, writable)
        except wasmtime.WasmtimeError:
            raise Refused(f"{guest}: {host} cannot be opened as a folder") from None
    return wasi


def _module(store: wasmtime.Store, module: wasmtime.Module) -> Callable[[], int]:
    linker = wasmtime.Linker(store.engine)
    linker.define_wasi()
    # The engine's own refuses codes over 125; and nothing has to be unwound in a process that ends.
    linker.allow_shadowing = True
    kind = wasmtime.FuncType([wasmtime.ValType.i32()], [])
    linker.define_func(_PREVIEW_1, "proc_exit", kind, lambda code: os._exit(code & 0xFF))
    missing = [f"{one.module}.{one.name}" for one in module.imports if one.module != _PREVIEW_1]
    if missing:
        raise Refused(f"the module needs what is not there: {', '.join(missing[:5])}")
    if not any(one.name == "_start" for one in module.exports):
        raise Refused("the module has no function _start: it is a library, not a command")

    def run() -> None:
        begin = linker.instantiate(store, module).exports(store)["_start"]
        assert isinstance(begin, wasmtime.Func)
        begin(store)

    return lambda: _code(run)


def _component(store: wasmtime.Store, made: component.Component) -> Callable[[], int]:
    linker = component.Linker(store.engine)
    linker.add_wasip2()
    name = next((name for name in made.type.exports(store.engine) if name.startswith(_RUN)), None)
    entry = made.get_export_index("run", made.get_export_index(name)) if name is not None else None
    if entry is None:
        raise Refused("the component exports no wasi:cli/run: it is a library, not a command")

    def run() -> object:
        function = linker.instantiate(store, made).get_func(store, entry)
        assert function is not None
        return getattr(function(store), "tag", "ok")

    return lambda: _code(run)


def _code(run: Callable[[], object]) -> int:
    try:
        return 1 if run() == "err" else 0
    except wasmtime.ExitTrap as ended:
        return ended.code & 0xFF
    except (wasmtime.WasmtimeError, wasmtime.Trap) as trap:
        os.write(2, f"{_plain(trap)}\n".encode())
        return TRAPPED


def _plain(error: Exception) -> str:
    """The cause out of an engine's several lines."""
    text = getattr(error, "message", "") or str(error)
    head, _, cause = text.partition("Caused by:")
    lines = [line.strip() for line in (cause or head).splitlines() if line.strip()]
    return ": ".join(lines)[:1000] or "no reason given"
