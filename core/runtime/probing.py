"""What a runtime on this node can do: asked of the program itself, once for each program that is there.

Rules of this file: an answer is kept by the program's path, inode, size and time of change, in memory and beside the
other files of the state folder, so that looking at what has not changed spawns nothing. What a program does not say is
left out, never guessed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Final

from core import fsio
from core.cgroups import Hierarchies
from core.errors import AgentError, MissingTool
from core.process import Launcher, find
from core.runtime import criu, wasm_cache
from core.runtime.table import RuntimeSpec
from core.values import dataclass

PROBES: Final = "runtimes.json"
"""The file below the state folder in which answers are kept."""
_FORM: Final = 2
"""Raised when programs are asked otherwise than before: what an earlier version of us was told is then asked anew."""
_SECONDS: Final = 5.0
_ADVICE: Final = "Install {} anew, or correct its path in the configuration."
_VERSION: Final = re.compile(r"\b(\d+)\.(\d+)(?:\.(\d+))?[-+~.\w]*")
_FLAGS: Final = {
    "SECCOMP": "seccomp",
    "APPARMOR": "apparmor",
    "SELINUX": "selinux",
    "SYSTEMD": "systemd",
    "CRIU": "checkpoint",
}
_PLATFORM: Final = re.compile(r"-platform string\s[^\n]*\(default \"(\w+)\"\)")
_NODE_STACK: Final = "the node's stack in the sandbox's namespace"
_MASKS: Final = "CVE-2025-31133, -52565 and -52881 (masked paths and writes to /proc led astray)"
_FLAWS: Final = (
    ("runc", (0, 0, 0), (1, 1, 12), "CVE-2024-21626 (a working folder that leads out)"),
    ("runc", (0, 0, 0), (1, 1, 14), "CVE-2024-45310 (empty folders made outside)"),
    ("runc", (0, 0, 0), (1, 2, 8), _MASKS),
    ("runc", (1, 3, 0), (1, 3, 3), _MASKS),
    ("crun", (0, 0, 0), (1, 4, 4), "CVE-2022-27650 (inheritable capabilities)"),
)
"""Program, the first version with the flaw, the first without, the flaw. Distributions mend older ones quietly."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found. `path` "" and `problem` say that it cannot be used, `advice` what to do about it.

    `can` maps what it can (cgroup, seccomp, apparmor, selinux, systemd, checkpoint, namespaces; of gVisor also
    platform and network) to its answer.
    """

    path: str = ""
    version: str = ""
    can: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    problem: str = ""
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        """A form for statuses and for the cache; empty fields are left out."""
        whole = {name: getattr(self, name) for name in self.__slots__}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in whole.items() if value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Probe:
        """The inverse of `to_json`."""
        return cls(**{**data, "warnings": tuple(data.get("warnings", ()))})


def told(spec: RuntimeSpec, probe: Probe) -> dict[str, Any]:
    """A runtime as people read it in the Node's status: its driver and program, and what was found."""
    return {"driver": spec.driver, "program": spec.program, **probe.to_json()}


class Prober:
    """Asks runtimes what they can. `cache`: a file, or None where nothing may be written; `found`: of this node."""

    def __init__(self, launcher: Launcher, found: Hierarchies, cache: Path | None) -> None:
        self._launcher = launcher
        self._found = found
        self._cache = cache
        self._known: dict[str, Any] | None = None

    def probe(self, spec: RuntimeSpec) -> Probe:
        """What the runtime can; never raises: what is wrong is in the answer."""
        if spec.driver == "wasm":
            return _embedded()
        try:
            path = find(spec.program, _package(spec))
        except MissingTool as error:
            if spec.path:
                return Probe(problem="not there", advice=f"Install it, or correct runtimes.{spec.name}.path.")
            return Probe(problem="not installed", advice=error.hint())
        probe = self._remembered(spec, path)
        if probe.problem:
            return probe
        if spec.driver == "vm":
            return self._with_guest(probe, spec)
        return self._with_checkpoints(probe, spec) if spec.driver == "oci" else probe

    def _with_checkpoints(self, probe: Probe, spec: RuntimeSpec) -> Probe:
        """Whether it has checkpoints here: CRIU's word is of this boot's kernel, and not kept with the program's."""
        if spec.is_gvisor:
            lone = spec.options.get("network") == "none"
            own = {"network": ["none"]} if lone else {}
            return replace(probe, can={**probe.can, **own, "checkpoint": lone})
        if probe.can.get("checkpoint") and criu.why_not(self._launcher):
            return replace(probe, can={**probe.can, "checkpoint": False})
        return probe

    def _with_guest(self, probe: Probe, spec: RuntimeSpec) -> Probe:
        from core.runtime.vm import ready  # of no use to a command that asks nothing

        guest = ready.guest_of(spec.options)
        found = ready.look(probe.path, spec.options, guest if self._cache is None else self._cache.parent)
        return replace(probe, can=found.can, warnings=found.warnings, problem=found.problem, advice=found.advice)

    def _remembered(self, spec: RuntimeSpec, path: str) -> Probe:
        mark = _mark(path)
        known = self._load().get(path)
        if known is not None and known["mark"] == mark:
            return Probe.from_json(known["probe"])
        probe = self._ask(spec, path)
        if not probe.problem:
            self._keep(path, {"mark": mark, "probe": probe.to_json()})
        return probe

    def _ask(self, spec: RuntimeSpec, path: str) -> Probe:
        if spec.driver == "vm":
            return ask_version(path, self._launcher, "--version", r"version (\S+)")
        if spec.driver == "shim":
            return ask_version(path, self._launcher, "-v", r"Version:\s*(\S+)")
        if spec.is_gvisor:
            return ask_gvisor(path, self._launcher, self._found)
        return ask(path, self._launcher, self._found)

    def _load(self) -> dict[str, Any]:
        if self._known is None:
            self._known = {}
            if self._cache is not None:
                self._known = _read(self._cache)
        return self._known

    def _keep(self, path: str, entry: Mapping[str, Any]) -> None:
        known = self._load()
        known[path] = entry
        if self._cache is not None:
            fsio.write_atomic(self._cache, json.dumps(known).encode(), durable=False)


def _embedded() -> Probe:
    """The engine for modules, which came with us: nothing is spawned."""
    try:
        return Probe("wasmtime", wasm_cache.version(), {"wasi": ["0.1", "0.2"]})
    except MissingTool as error:
        return Probe(problem="not installed", advice=error.hint())


def _read(cache: Path) -> dict[str, Any]:
    try:
        known = json.loads(cache.read_bytes())
    except (OSError, ValueError):  # not there, or cut off: asked anew
        return {}
    entries = known.items() if isinstance(known, dict) else ()
    return {path: entry for path, entry in entries if isinstance(entry, dict) and {"mark", "probe"} <= entry.keys()}


def _mark(path: str) -> list[int]:
    seen = os.stat(path)
    return [_FORM, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns]


def _package(spec: RuntimeSpec) -> str:
    packages = {"vm": "qemu-system-x86", "shim": "containerd"}
    called = Path(spec.program).name
    return packages.get(spec.driver, called) if not spec.path else called


def ask(path: str, launcher: Launcher, found: Hierarchies) -> Probe:
    """Run the program for its version and, where it tells them, its features."""
    advice = _ADVICE.format(Path(path).name)
    try:
        said = launcher.run([path, "--version"], timeout=_SECONDS)
        if said.code != 0:
            return Probe(problem=f"does not work: {said.complaint()}", advice=advice)
        told = launcher.run([path, "features"], timeout=_SECONDS)
    except (AgentError, OSError) as error:
        return Probe(problem=f"does not start: {error}", advice=advice)
    text = said.text()
    first = text.partition("\n")[0]
    program = first.split()[0] if first.split() else Path(path).name
    version = next(iter(re.findall(r"\S*\d+\.\d\S*", first)), "")
    can = abilities(text, told.stdout if told.code == 0 else b"")
    return Probe(path, version, can, tuple(_warnings(program, text, found)))


def ask_version(path: str, launcher: Launcher, option: str, pattern: str) -> Probe:
    """Run a program for its version only, which is what `pattern` encloses in what it says."""
    try:
        said = launcher.run([path, option], timeout=_SECONDS)
    except (AgentError, OSError) as error:
        return Probe(problem=f"does not start: {error}", advice=_ADVICE.format(Path(path).name))
    if said.code != 0:
        return Probe(problem=f"does not work: {said.complaint()}", advice=_ADVICE.format(Path(path).name))
    return Probe(path, next(iter(re.findall(pattern, said.text())), ""))


def ask_gvisor(path: str, launcher: Launcher, found: Hierarchies) -> Probe:
    """Run gVisor for its version and the flags that it would take by itself; the rest is what we ask it for.

    It knows no `features`. The platform is how its kernel comes between a task and the node's kernel.
    """
    probe = ask_version(path, launcher, "--version", r"version (\S+)")
    if probe.problem:
        return probe
    try:
        flags = launcher.run([path, "flags"], timeout=_SECONDS)
    except (AgentError, OSError) as error:
        return replace(probe, problem=f"does not start: {error}", advice=_ADVICE.format(Path(path).name))
    told = (flags.stdout + flags.stderr).decode("utf-8", "replace")
    platform = _PLATFORM.findall(told)
    can: dict[str, Any] = {"platform": platform[:1], "seccomp": "-oci-seccomp" in told} if platform else {}
    return replace(probe, can={**can, "cgroup": ["v1" if found.v1 else "v2"], "network": [_NODE_STACK]})


def abilities(version: str, features: bytes) -> dict[str, Any]:
    """What `--version` (crun lists its parts there) and `features` (OCI features.md, JSON) tell."""
    try:
        told = json.loads(features)
        linux = told["linux"]
    except (ValueError, KeyError, TypeError):
        flags = set(re.findall(r"\+([A-Z]+)", version))
        return {name: flag in flags for flag, name in _FLAGS.items()} if flags else {}
    can: dict[str, Any] = {
        name: bool(linux.get(name, {}).get("enabled")) for name in ("seccomp", "apparmor", "selinux") if name in linux
    }
    groups = linux.get("cgroup", {})
    can["cgroup"] = [name for name in ("v1", "v2") if groups.get(name)]
    can["systemd"] = bool(groups.get("systemd"))
    can["namespaces"] = list(linux.get("namespaces", ()))
    checkpoint = told.get("annotations", {}).get("org.opencontainers.runc.checkpoint.enabled")
    return can if checkpoint is None else can | {"checkpoint": checkpoint == "true"}


def _warnings(program: str, text: str, found: Hierarchies) -> Iterator[str]:
    numbers = _VERSION.search(text)
    if numbers is not None:
        version = tuple(int(number or 0) for number in numbers.groups())
        for name, first, mended, flaw in _FLAWS:
            if program == name and first <= version < mended:
                least = ".".join(map(str, mended))
                yield f"older than {least}: {flaw}, unless the distribution has mended it"
    if program == "crun" and found.v1 and found.v2 is not None and _controls(found.v2):
        yield f"it refuses a node that has controllers in cgroup v2 beside v1, as here ({found.v2})"


def _controls(hierarchy: Path) -> bool:
    try:
        return bool((hierarchy / "cgroup.controllers").read_text().split())
    except OSError:
        return False
