"""The drivers of runtimes as a literal table, and the runtimes that are there without any configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from core.clock import Clock
from core.process import Launcher
from core.runtime import gvisor
from core.runtime.oci import OciShim, Tools
from core.runtime.sandboxes import OciSandboxer
from core.runtime.shimv2.driver import ShimV2
from core.runtime.shimv2.program import ShimProgram
from core.runtime.shimv2.sandboxes import ShimSandboxer
from core.runtime.table import Driver, Runtime, RuntimeSpec, RuntimeTable
from core.runtime.vm.driver import VmShim
from core.runtime.vm.installed import GUEST
from core.runtime.vm.sandboxes import VmSandboxer
from core.runtime.wasm import WasmShim
from core.runtime.wasm_sandboxes import WasmSandboxer
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


def _oci(ground: Ground) -> Driver:
    sandboxer = OciSandboxer(ground.state, ground.group, ground.clock, ground.boot, ground.launcher)

    def build(spec: RuntimeSpec) -> Runtime:
        whole = (ground.state, ground.group, ground.launcher, ground.clock, ground.boot)
        shim = gvisor.GvisorShim(*whole, spec.program) if spec.is_gvisor else OciShim(*whole, Tools(spec.program))
        return Runtime(spec, sandboxer, shim)

    return build


def _wasm(ground: Ground) -> Driver:
    sandboxer = WasmSandboxer(ground.state, ground.group, ground.clock, ground.boot)
    cache = (ground.cache or ground.state) / "wasm"

    def build(spec: RuntimeSpec) -> Runtime:
        shim = WasmShim(ground.state, ground.group, ground.launcher, ground.clock, ground.boot, cache)
        return Runtime(spec, sandboxer, shim)

    return build


def _shim(ground: Ground) -> Driver:
    pinned = OciSandboxer(ground.state, ground.group, ground.clock, ground.boot, ground.launcher)

    def build(spec: RuntimeSpec) -> Runtime:
        program = ShimProgram(spec.program, spec.options)
        whole = (ground.state, ground.group, ground.launcher, ground.clock, ground.boot, program)
        return Runtime(spec, ShimSandboxer(*whole) if program.has_sandboxes else pinned, ShimV2(*whole))

    return build


def _vm(ground: Ground) -> Driver:
    cache = (ground.cache or ground.state) / "vm"

    def build(spec: RuntimeSpec) -> Runtime:
        guest = Path(spec.options.get("guest", str(GUEST)))
        sandboxer = VmSandboxer(ground.state, ground.group, ground.launcher, ground.clock, ground.boot, guest)
        sandboxer.qemu = spec.path
        return Runtime(spec, sandboxer, VmShim(sandboxer, ground.launcher, ground.clock, cache))

    return build


DRIVERS: Final[Mapping[str, Callable[[Ground], Driver]]] = {"oci": _oci, "wasm": _wasm, "shim": _shim, "vm": _vm}


def build_table(ground: Ground, configured: Iterable[RuntimeSpec] = ()) -> RuntimeTable:
    """The built-in runtimes and the configured ones, which win over those of their name."""
    drivers = {name: make(ground) for name, make in DRIVERS.items()}
    return RuntimeTable(ground.state, all_runtimes(configured), drivers)


def all_runtimes(configured: Iterable[RuntimeSpec]) -> tuple[RuntimeSpec, ...]:
    """Every runtime that may be asked for."""
    return tuple({spec.name: spec for spec in (*BUILT_IN, *configured)}.values())
