"""What this node can do: one check a subject, each a line with what was found and what to do.

Rules of this file: nothing is changed on the node; everything works without root; what cannot be seen is said, not
guessed. A `MISSING` subject stops containers from running here; a `LIMITED` one takes something away.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

from core import cgroups, proc
from core.errors import AgentError, MissingTool
from core.fsio import free_bytes, refusal
from core.process import Launcher, find
from core.runtime.probing import Probe
from core.runtime.table import RuntimeSpec
from core.values import dataclass
from reconciler.cli.texts import amount

ENOUGH_DISK: Final = 1 << 30
OLDEST_KERNEL: Final = (5, 12)
"""openat2 (5.6), open_tree and mount_setattr (5.12)."""
_NEEDED: Final = ("conmon",)
_PROGRAMS: Final = (
    ("conmon", "conmon", "watches each container, also while the agent is away"),
    ("catatonit", "catatonit", "the init of shared process namespaces"),
    ("git", "git", "sources in git repositories"),
)
_BUILT_IN: Final = ("runc", "crun", "gvisor", "wasm", "runc-v2", "vm")
_CAPABILITIES: Final = {
    0: "CHOWN", 1: "DAC_OVERRIDE", 3: "FOWNER", 5: "KILL", 6: "SETGID", 7: "SETUID", 8: "SETPCAP", 12: "NET_ADMIN",
    18: "SYS_CHROOT", 21: "SYS_ADMIN", 24: "SYS_RESOURCE", 27: "MKNOD", 31: "SETFCAP",
}  # fmt: skip
"""Those that the agent uses, by their bits (linux/capability.h)."""
_WITHOUT_RESOURCE: Final = "containers cannot raise limits over the node's own"


class Level(StrEnum):
    """How a check ended."""

    OK = "ok"
    LIMITED = "limited"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `doctor`; `advice` says what to do, where there is something."""

    level: Level
    subject: str
    found: str
    advice: str = ""


def findings(root: Path, runtimes: Sequence[tuple[RuntimeSpec, Probe]] = ()) -> Iterator[Finding]:
    """All checks, in the order in which a person wants to read them; `root` is where data will lie.

    `runtimes`: those that may be asked for, with what they answered.
    """
    for check in (user, kernel, capabilities, mount_namespace, control_groups, overlay, lambda: disk(root)):
        yield _guarded(check)
    for program, package, use in _PROGRAMS:
        yield tool(program, package, use)
    for spec, probe in runtimes:
        yield runtime(spec, probe)


def _guarded(check: Callable[[], Finding]) -> Finding:
    """What a check finds; not even an unreadable /proc ends the others."""
    try:
        return check()
    except OSError as error:
        name = getattr(check, "__name__", "disk").replace("_", " ")
        return Finding(Level.LIMITED, name, f"cannot be seen: {error.strerror or error}", "Try it as root.")


def user() -> Finding:
    """Whether we may make namespaces and mounts."""
    if os.geteuid() == 0:
        return Finding(Level.OK, "user", "root")
    advice = (
        "Run the agent and apply as root; get, diff, schema, doctor and containers with runtime: wasm work without."
    )
    return Finding(Level.MISSING, "user", f"uid {os.geteuid()}, not root", advice)


def kernel() -> Finding:
    """Whether the kernel has the calls that we need."""
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if numbers >= OLDEST_KERNEL:
        return Finding(Level.OK, "kernel", f"{platform.system()} {release} {platform.machine()}")
    return Finding(Level.MISSING, "kernel", f"{release} is older than 5.12", "Install a newer kernel.")


def capabilities() -> Finding:
    """Which capabilities root has been left without (inside of a container, say)."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("CapBnd:"))
    bits = int(line.split()[1], 16)
    lacking = [f"CAP_{name}" for bit, name in _CAPABILITIES.items() if not bits >> bit & 1]
    if not lacking:
        return Finding(Level.OK, "capabilities", "all that are used")
    only_resource = lacking == ["CAP_SYS_RESOURCE"]
    advice = _WITHOUT_RESOURCE if only_resource else "Start it outside of a container, or give the container these."
    return Finding(
        Level.LIMITED if only_resource else Level.MISSING, "capabilities", f"without {', '.join(lacking)}", advice
    )


def mount_namespace() -> Finding:
    """Whether our mounts are the node's."""
    same = proc.same_mount_namespace_as_init()
    if same:
        return Finding(Level.OK, "mounts", "in the mount namespace of pid 1")
    if same is None:
        return Finding(Level.OK, "mounts", "whether this is pid 1's mount namespace cannot be seen here")
    advice = "Start it outside (nsenter -t 1 -m), or say: reconciler agent --private-mounts"
    return Finding(Level.LIMITED, "mounts", "in a mount namespace of its own", advice)


def control_groups() -> Finding:
    """Which version of cgroups is mounted, and whether we may write there."""
    found = cgroups.hierarchies()
    version = "v2" if found.pure_v2 else "hybrid (v1 and v2)" if found.v2 and found.v1 else "v1" if found.v1 else ""
    if not version:
        return Finding(Level.MISSING, "cgroups", "none mounted", "mount -t cgroup2 none /sys/fs/cgroup")
    if found.tracking is None:
        return Finding(Level.MISSING, "cgroups", f"{version}, read-only for us", "Run as root, outside of a container.")
    return Finding(Level.OK, "cgroups", version)


def overlay() -> Finding:
    """Whether the kernel has overlayfs."""
    if "\toverlay\n" in Path("/proc/filesystems").read_text():
        return Finding(Level.OK, "overlayfs", "in the kernel")
    return Finding(
        Level.LIMITED, "overlayfs", "not in the kernel", "Load it (modprobe overlay), or use snapshotter: native."
    )


def disk(root: Path) -> Finding:
    """How much may still be written where the data will lie."""
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    if refused := refusal(there):
        advice = "Mount it writable again (dmesg says why the kernel did that), or choose another --root."
        return Finding(Level.MISSING, "disk", f"{root} cannot be written: {refused}", advice)
    free = free_bytes(there)
    if free >= ENOUGH_DISK:
        return Finding(Level.OK, "disk", f"{amount(free)} free for {root}")
    return Finding(
        Level.LIMITED, "disk", f"only {amount(free)} free for {root}", "Free space, or choose another --root."
    )


def runtime(spec: RuntimeSpec, probe: Probe) -> Finding:
    """Whether a runtime works, and what it can do. Only runc must be there: it is taken unless told otherwise."""
    subject = f"runtime {spec.name}" if spec.name not in _BUILT_IN else spec.name
    if probe.problem:
        level = Level.MISSING if spec.name == "runc" else Level.LIMITED
        return Finding(level, subject, f"{probe.problem} (runs containers)", probe.advice)
    told = {name: value for name, value in probe.can.items() if name != "namespaces"}
    can = [name if value is True else f"{name} {'+'.join(value)}" for name, value in told.items() if value]
    level = Level.LIMITED if probe.warnings else Level.OK
    known = f"{probe.version} ({probe.path})" + (f": {', '.join(can)}" if can else "")
    return Finding(level, subject, known, "; ".join(probe.warnings))


def tool(program: str, package: str, use: str) -> Finding:
    """Whether a program is installed, and which version of it answers."""
    level = Level.MISSING if program in _NEEDED else Level.LIMITED
    try:
        path = find(program, package)
        result = Launcher().run([path, "--version"], timeout=5.0)
    except MissingTool as error:
        return Finding(level, program, f"not installed ({use})", error.hint())
    except (AgentError, OSError) as error:
        return Finding(
            level, program, f"does not start: {error}", f"Install it anew: apt-get install --reinstall {package}"
        )
    if result.code != 0:
        return Finding(level, program, f"does not work: {result.complaint()}", f"apt-get install --reinstall {package}")
    words = (result.text() or result.complaint()).split("\n")[0].split()
    version = next((word for word in words if word[:1].isdigit()), words[-1] if words else "?")
    return Finding(Level.OK, program, f"{version.strip(',')} ({path})")
