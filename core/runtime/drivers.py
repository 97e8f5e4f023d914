"""The drivers of runtimes as a literal table, and the runtimes that are there without any configuration.

Rules of this file: what a driver is made of is imported when its first runtime is built; only what every node needs,
OCI runtimes, is there from the start. What `has` looks for is said where the folders are made, which is not imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from core import fsio
from core.clock import Clock
from core.process import Launcher
from core.runtime.oci import OciShim, Tools
from core.runtime.sandboxes import OciSandboxer
from core.runtime.table import Driver, Runtime, RuntimeSpec, RuntimeTable
from core.values import dataclass

BUILT_IN: Final = (
    RuntimeSpec("runc"),
    RuntimeSpec("crun"),
    RuntimeSpec("gvisor"),
    RuntimeSpec("wasm", "wasm"),
    RuntimeSpec("runc-v2", "shim"),
    RuntimeSpec("vm", "vm"),
)


@dataclass(frozen=True, slots=True)
class Ground:
    """What every driver stands on: see `OciShim`."""

    state: Path
    group: str
    launcher: Launcher
    clock: Clock
    boot: str
    cache: Path | None = None
    """Where drivers keep what they make once for many tasks and can make anew; None: in `state`."""


def _pinned(ground: Ground) -> Callable[[], OciSandboxer]:
    """The sandboxer of pinned namespaces that runtimes of one kind share."""
    return cache(lambda: OciSandboxer(ground.state, ground.group, ground.clock, ground.boot, ground.launcher))


def _oci(ground: Ground) -> Driver:
    sandboxer = _pinned(ground)

    def build(spec: RuntimeSpec) -> Runtime:
        whole = (ground.state, ground.group, ground.launcher, ground.clock, ground.boot)
        if spec.is_gvisor:
            from core.runtime.gvisor import GvisorShim, LoneGvisorShim

            made = LoneGvisorShim if spec.options.get("network") == "none" else GvisorShim
            return Runtime(spec, sandboxer(), made(*whole, spec.program))
        return Runtime(spec, sandboxer(), OciShim(*whole, Tools(spec.program)))

    return Driver(build, lambda spec: _holds(ground.state / Tools(spec.program).own_folder))


def _wasm(ground: Ground) -> Driver:
    def build(spec: RuntimeSpec) -> Runtime:
        from core.runtime.wasm import WasmShim
        from core.runtime.wasm_sandboxes import WasmSandboxer

        compiled = (ground.cache or ground.state) / "wasm"
        shim = WasmShim(ground.state, ground.group, ground.launcher, ground.clock, ground.boot, compiled)
        return Runtime(spec, WasmSandboxer(ground.state, ground.group, ground.clock, ground.boot), shim)

    return Driver(build)


def _shim(ground: Ground) -> Driver:
    pinned = _pinned(ground)

    def build(spec: RuntimeSpec) -> Runtime:
        from core.runtime.shimv2.driver import ShimV2
        from core.runtime.shimv2.program import ShimProgram
        from core.runtime.shimv2.sandboxes import ShimSandboxer

        program = ShimProgram(spec.program, spec.options)
        whole = (ground.state, ground.group, ground.launcher, ground.clock, ground.boot, program)
        return Runtime(spec, ShimSandboxer(*whole) if program.has_sandboxes else pinned(), ShimV2(*whole))

    def has(spec: RuntimeSpec) -> bool:
        return any(_holds(one) for one in (ground.state / "shim" / Path(spec.program).name).glob("*"))

    return Driver(build, has)


def _vm(ground: Ground) -> Driver:
    disks = (ground.cache or ground.state) / "vm"

    def build(spec: RuntimeSpec) -> Runtime:
        from core.runtime.vm.driver import VmShim
        from core.runtime.vm.installed import GUEST
        from core.runtime.vm.sandboxes import VmSandboxer

        guest = Path(spec.options.get("guest", str(GUEST)))
        sandboxer = VmSandboxer(ground.state, ground.group, ground.launcher, ground.clock, ground.boot, guest)
        sandboxer.qemu = spec.path
        sandboxer.board = spec.options.get("machine", "")
        return Runtime(spec, sandboxer, VmShim(sandboxer, ground.launcher, ground.clock, disks))

    def has(spec: RuntimeSpec) -> bool:
        return _holds(disks / "layers") or any(disks.glob(f"roots/{fsio.STAGING}*"))

    return Driver(build, has, lambda spec: any(disks.glob("roots/*.erofs")))


DRIVERS: Final[Mapping[str, Callable[[Ground], Driver]]] = {"oci": _oci, "wasm": _wasm, "shim": _shim, "vm": _vm}


def _holds(folder: Path) -> bool:
    try:
        return bool(os.listdir(folder))
    except FileNotFoundError:
        return False


def build_table(ground: Ground, configured: Iterable[RuntimeSpec] = ()) -> RuntimeTable:
    """The built-in runtimes and the configured ones, which win over those of their name."""
    drivers = {name: make(ground) for name, make in DRIVERS.items()}
    return RuntimeTable(ground.state, all_runtimes(configured), drivers)


def all_runtimes(configured: Iterable[RuntimeSpec]) -> tuple[RuntimeSpec, ...]:
    """Every runtime that may be asked for."""
    return tuple({spec.name: spec for spec in (*BUILT_IN, *configured)}.values())
