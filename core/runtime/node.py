"""What this node can give a task: read once, as a value, so that the spec is built without looking."""

from __future__ import annotations

import os
import platform
import resource
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

from core import cgroups
from core.errors import Invalid, NotFound, from_os_error
from core.values import dataclass

_CAPABILITIES: Final = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)
"""In the kernel's order (linux/capability.h): the index is the bit."""
_NOT_DEVICES: Final = frozenset({"pts", "shm", "mqueue", "fd", "console", "ptmx", "hugepages"})


@dataclass(frozen=True, slots=True)
class Device:
    """A device node that a task gets: `kind` c or b, `access` of r, w, m."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o660
    uid: int = 0
    gid: int = 0
    access: str = "rwm"

    @classmethod
    def at(cls, path: str, *, inside: str = "", access: str = "rwm") -> Self:
        """The host's device at `path`, to appear at `inside`; raises `NotFound`, `Invalid`."""
        try:
            seen = os.stat(path)
        except FileNotFoundError:
            advice = "Attach it, or correct `security.devices`."
            raise NotFound(f"device {path} is not on this node", advice=advice) from None
        except OSError as error:
            raise from_os_error(error, f"device {path}") from None
        kind = "c" if stat.S_ISCHR(seen.st_mode) else "b" if stat.S_ISBLK(seen.st_mode) else ""
        if not kind or not set(access) <= set("rwm"):
            raise Invalid(f"{path} is not a device that can be given with {access!r}")
        numbers = os.major(seen.st_rdev), os.minor(seen.st_rdev)
        return cls(inside or path, kind, *numbers, stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid, access)

    def to_oci(self) -> dict[str, Any]:
        """The form of `linux.devices`."""
        numbers = {"type": self.kind, "major": self.major, "minor": self.minor}
        return {"path": self.path, **numbers, "fileMode": self.mode, "uid": self.uid, "gid": self.gid}

    def to_rule(self) -> dict[str, Any]:
        """The form of `linux.resources.devices`."""
        return {"allow": True, "type": self.kind, "major": self.major, "minor": self.minor, "access": self.access}


@dataclass(frozen=True, slots=True)
class Node:
    """Facts. `capabilities`: what we may hand on; `rlimits`: hard limits; `oom_floor`: as low as we can set it."""

    architecture: str
    capabilities: frozenset[str]
    all_capabilities: frozenset[str]
    rlimits: Mapping[str, int]
    oom_floor: int
    accounts_swap: bool
    devices: tuple[Device, ...]
    cpus: str = ""
    """The processors that tasks can be kept to, as a list such as 0-3; "": there is no cpuset control group."""
    mems: str = ""
    hugepages: frozenset[str] = frozenset()
    """The sizes of huge pages (2MB) that can be limited."""
    no_hugepages: str = "it has no huge pages"
    """Why there are none."""
    weighs_io: bool = False
    """Whether I/O can be weighed."""
    apparmor: bool = False
    """Whether AppArmor is in this kernel, and on."""


APPARMOR_PROFILES: Final = Path("/sys/kernel/security/apparmor/profiles")


def loaded_profiles(listed: Path = APPARMOR_PROFILES) -> frozenset[str] | None:
    """The names of the AppArmor profiles that are loaded (`name (mode)` a line); None where that cannot be seen."""
    try:
        lines = listed.read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    return frozenset(line.rpartition(" (")[0] for line in lines)


def read_node() -> Node:
    """Look at this node, as this process."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    known = [f"CAP_{name}" for name in _CAPABILITIES[: last + 1]]
    bits = next(
        int(line.split()[1], 16) for line in Path("/proc/self/status").read_text().splitlines() if "CapBnd:" in line
    )
    return Node(
        architecture=platform.machine(),
        capabilities=frozenset(name for bit, name in enumerate(known) if bits >> bit & 1),
        all_capabilities=frozenset(known),
        rlimits={name: _hard(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")},
        oom_floor=int(Path("/proc/self/oom_score_adj").read_text()),
        accounts_swap=_accounts_swap(cgroups.hierarchies()),
        devices=tuple(_devices(Path("/dev"))),
        apparmor=_has_apparmor(),
        **_limits(cgroups.hierarchies()),
    )


def _limits(found: cgroups.Hierarchies) -> dict[str, Any]:
    """What the control groups of this node can hold beside time, memory and processes."""
    v2 = found.v2 if found.pure_v2 else None
    controllers = set(_text(v2 / "cgroup.controllers").split()) if v2 is not None else set(found.v1)
    cpuset, blkio = (v2, v2) if v2 is not None else (found.v1.get("cpuset"), found.v1.get("blkio"))
    sizes = frozenset(_size(int(entry.name[10:-2])) for entry in _PAGES.glob("hugepages-*kB"))
    held = sizes if "hugetlb" in controllers else frozenset()
    why = "it has no huge pages"
    if sizes and not held:
        elsewhere = found.v2 is not None and "hugetlb" in _text(found.v2 / "cgroup.controllers").split()
        why = "its kernel has no hugetlb control group"
        if elsewhere:
            why = "their control group is of version 2 here, beside version 1, where no runtime writes limits"
    effective = ".effective" if v2 is not None else ""
    return {
        "cpus": _text(cpuset / f"cpuset.cpus{effective}") if cpuset is not None and "cpuset" in controllers else "",
        "mems": _text(cpuset / f"cpuset.mems{effective}") if cpuset is not None and "cpuset" in controllers else "",
        "hugepages": held,
        "no_hugepages": why,
        "weighs_io": blkio is not None and any(any(blkio.glob(name)) for name in _WEIGHING),
    }


_WEIGHING: Final = ("*/io.weight", "*/io.bfq.weight", "*/blkio.weight", "blkio.bfq.io_serviced")
"""Any of these files tells that groups have weights; the last one is in the top group, which has none itself."""
_PAGES: Final = Path("/sys/kernel/mm/hugepages")


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _size(kilobytes: int) -> str:
    """As the kernel names the files of its control group: 64KB, 2MB, 1GB."""
    shift, unit = (20, "GB") if kilobytes >= 1 << 20 else (10, "MB") if kilobytes >= 1 << 10 else (0, "KB")
    return f"{kilobytes >> shift}{unit}"


def _has_apparmor() -> bool:
    try:
        return Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        return False


def _hard(kind: int) -> int:
    hard = resource.getrlimit(kind)[1]
    return (1 << 64) - 1 if hard == resource.RLIM_INFINITY else hard


def _accounts_swap(found: cgroups.Hierarchies) -> bool:
    if (memory := found.v1.get("memory")) is not None:
        return (memory / "memory.memsw.limit_in_bytes").exists()
    return found.v2 is not None and any(found.v2.glob("*/memory.swap.max"))


def _devices(folder: Path) -> Iterator[Device]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith(".") or entry.name in _NOT_DEVICES or entry.is_symlink():
            continue
        if entry.is_dir():
            yield from _devices(Path(entry.path))
        elif stat.S_ISCHR(entry.stat().st_mode) or stat.S_ISBLK(entry.stat().st_mode):
            yield Device.at(entry.path)
