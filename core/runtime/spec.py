"""From what is wanted to the OCI runtime-spec (version 1.0.2, config.md and config-linux.md). Pure.

Rules of this file: the result has no hooks, ever. What this node cannot give (a raised rlimit, a negative
oom_score_adj, a capability outside our bounding set) is clamped, and a note says so; what cannot be right is `Invalid`.

Glossary. *private* parts of a task, always new: its mount and cgroup namespaces, and its PID namespace unless a shared
one is given. Network, IPC and UTS come as paths from the sandbox; without a network path the task is on the host's.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import field
from enum import StrEnum
from typing import Any, Final

from core.errors import Invalid, Unsupported
from core.runtime import seccomp
from core.runtime.joining import oci_user
from core.runtime.node import Device, Node
from core.runtime.resourcing import Resources, resources
from core.values import dataclass

OCI_VERSION: Final = "1.0.2"
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INIT: Final = "/dev/init"
"""Where a task finds its init: in a folder that is always there and never the image's."""
IDS: Final = 65536
"""How many users, and groups, there are in a user namespace."""
DEFAULT_CAPABILITIES: Final = frozenset(
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP"),
        *("NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
    )
)
MASKED_PATHS: Final = (
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"),
    *("/sys/devices/virtual/powercap", "/sys/firmware"),
)
READONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
UNCONFINED: Final = "unconfined"
_KERNEL_FOLDERS: Final = ("/proc", "/sys", "/dev")


class MountKind(StrEnum):
    """What appears at a mount's path."""

    BIND = "bind"
    TMPFS = "tmpfs"


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount of a task: a host path (bind) or fresh memory (tmpfs, `size` in bytes, `mode` as in chmod)."""

    path: str
    kind: MountKind = MountKind.BIND
    source: str = ""
    read_only: bool = False
    size: int = 0
    mode: int = 0o1777
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class User:
    """Numbers only; see `rootfs.resolve_user` for names."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()

    def __str__(self) -> str:
        return ",".join((f"{self.uid}:{self.gid}", *map(str, self.groups)))


@dataclass(frozen=True, slots=True)
class Security:
    """What a task may do. `add` and `drop` take `CAP_X`, `X` or `ALL`; a `seccomp` of None is the default profile.

    `apparmor`: the name of a profile, or `unconfined`; "": as the runtime leaves it. A privileged task has every
    capability that is not dropped, every device, and no profile of either kind.
    """

    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    privileged: bool = False
    no_new_privileges: bool = True
    readonly_rootfs: bool = False
    seccomp: Mapping[str, Any] | None = None
    unconfined: bool = False
    apparmor: str = ""
    devices: tuple[Device, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A task as its planner wants it.

    `namespaces` and `files` are those of `SandboxState`; `cgroup` is the full path of the task's own group; `rlimits`
    maps `RLIMIT_X` to (soft, hard).
    """

    args: Sequence[str]
    cgroup: str
    env: Sequence[str] = ()
    cwd: str = "/"
    user: User = User()
    mounts: Sequence[Mount] = ()
    resources: Resources = Resources()
    security: Security = Security()
    namespaces: Mapping[str, str] = field(default_factory=dict)
    first_id: int = 0
    """Where the ids of its user namespace begin on the node; 0: it has none of its own."""
    files: Mapping[str, str] = field(default_factory=dict)
    terminal: bool = False
    hostname: str = ""
    rlimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    oom_score_adj: int = 0
    init: str = ""
    """The host's path of a static init that is to be the first process and to start the command; "": none."""


@dataclass(frozen=True, slots=True)
class Built:
    """The spec, and what of the wish this node could not give."""

    spec: dict[str, Any]
    notes: tuple[str, ...]


def build(wanted: Wanted, node: Node) -> Built:
    """The runtime-spec of `wanted` on `node`; raises `Invalid` on what cannot be right, `Unsupported`."""
    notes: list[str] = []
    capabilities = _capabilities(wanted.security, node, notes)
    spec: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "process": _process(wanted, capabilities, node, notes),
        "root": {"path": "rootfs", "readonly": wanted.security.readonly_rootfs},
        "mounts": _mounts(wanted),
        "linux": _linux(wanted, capabilities, node),
    }
    if wanted.hostname and "uts" not in wanted.namespaces:
        spec["hostname"] = wanted.hostname
    return Built(spec, tuple(notes))


def environment(*layers: Sequence[str]) -> list[str]:
    """`NAME=value` lists, later ones winning, each name once, with a PATH. Raises `Invalid`."""
    merged: dict[str, str] = {"PATH": DEFAULT_PATH}
    for pair in (pair for layer in layers for pair in layer):
        name, equals, value = pair.partition("=")
        if not name or not equals or "\0" in pair:
            raise Invalid(f"not an environment variable: {name[:100]!r}", advice="Write NAME=value.")
        merged.pop(name, None)
        merged[name] = value
    return [f"{name}={value}" for name, value in merged.items()]


def _process(wanted: Wanted, capabilities: list[str], node: Node, notes: list[str]) -> dict[str, Any]:
    if not wanted.args or not wanted.args[0]:
        raise Invalid("no command", advice="Set `command`, or use an image that has one.")
    if any("\0" in word for word in wanted.args):
        raise Invalid("a NUL byte in the command")
    env = environment(wanted.env)
    if wanted.terminal and not any(pair.startswith("TERM=") for pair in env):
        env.append("TERM=xterm")
    user = wanted.user
    return {
        "terminal": wanted.terminal,
        "user": oci_user(user.uid, user.gid, user.groups),
        "args": [INIT, "--", *wanted.args] if wanted.init else list(wanted.args),
        "env": env,
        "cwd": _cwd(wanted.cwd),
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
        "noNewPrivileges": wanted.security.no_new_privileges and not wanted.security.privileged,
        "oomScoreAdj": _oom_score(wanted.oom_score_adj, node, notes),
        **({"rlimits": limits} if (limits := _rlimits(wanted.rlimits, node, notes)) else {}),
        **({"apparmorProfile": profile} if (profile := _apparmor(wanted.security, node)) else {}),
    }


def _apparmor(security: Security, node: Node) -> str:
    """The profile to name; raises `Unsupported` for one on a node without AppArmor."""
    if not node.apparmor:
        if security.apparmor in ("", UNCONFINED) or security.privileged:
            return ""
        raise Unsupported(
            f"this node has no AppArmor, so profile {security.apparmor!r} would confine nothing",
            advice="Leave `security.apparmor` out on this node, or boot it with apparmor=1 security=apparmor.",
        )
    return UNCONFINED if security.privileged else security.apparmor


def _inside(path: str, what: str) -> str:
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise Invalid(f"{what} {path!r} must be an absolute path without `..`")
    return "/" + posixpath.normpath(path).lstrip("/")


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def _cwd(path: str) -> str:
    cwd = _inside(path or "/", "working folder")
    # A working folder in /proc/self/fd would be a folder of the host (CVE-2024-21626).
    if any(_is_below(cwd, folder) for folder in ("/proc", "/sys")):
        raise Invalid(f"working folder {cwd} lies in the kernel's files")
    return cwd


def capability(name: str) -> str:
    """`CAP_X` out of `x`, `X` or `CAP_X`."""
    upper = name.upper()
    return upper if upper.startswith("CAP_") else f"CAP_{upper}"


def _capabilities(security: Security, node: Node, notes: list[str]) -> list[str]:
    wanted = set(node.all_capabilities if security.privileged else DEFAULT_CAPABILITIES)
    add, drop = ({capability(name) for name in names} for names in (security.add, security.drop))
    if unknown := sorted((add | drop) - node.all_capabilities - {"CAP_ALL"}):
        raise Invalid(f"unknown capabilities: {', '.join(unknown)}", advice="See capabilities(7): NET_ADMIN, …")
    if "CAP_ALL" in drop:
        wanted.clear()
    if "CAP_ALL" in add:
        wanted |= node.all_capabilities
    # As everywhere: with drop ALL, what is added is what is left; a name in both lists is dropped.
    wanted = (wanted | add) - drop - {"CAP_ALL"}
    if missing := sorted(wanted - node.capabilities):
        notes.append(f"this node cannot give {', '.join(missing)}")
    return sorted(wanted & node.capabilities)


def _oom_score(wanted: int, node: Node, notes: list[str]) -> int:
    if not -1000 <= wanted <= 1000:
        raise Invalid(f"oom score {wanted} is not within -1000 and 1000")
    if wanted < node.oom_floor and "CAP_SYS_RESOURCE" not in node.capabilities:
        if wanted != 0:
            notes.append(f"this node cannot lower oom_score_adj to {wanted}: it is {node.oom_floor}")
        return node.oom_floor
    return wanted


def _rlimits(wanted: Mapping[str, tuple[int, int]], node: Node, notes: list[str]) -> list[dict[str, Any]]:
    limits: list[dict[str, Any]] = []
    for name, (soft, hard) in sorted(wanted.items()):
        if name not in node.rlimits or not 0 <= soft <= hard:
            raise Invalid(f"rlimit {name}: {soft}:{hard} is not a known name with 0 ≤ soft ≤ hard")
        most = hard if "CAP_SYS_RESOURCE" in node.capabilities else min(hard, node.rlimits[name])
        if most < hard:
            notes.append(f"this node cannot raise {name} above {most}")
        limits.append({"type": name, "soft": min(soft, most), "hard": most})
    return limits


def _mount(path: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": path, "type": kind, "source": source, "options": list(options)}


def _kernel_mounts(privileged: bool) -> list[dict[str, Any]]:
    sys = () if privileged else ("ro",)
    quiet = ("nosuid", "noexec", "nodev")
    return [
        _mount("/proc", "proc", "proc", *quiet),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", *quiet[:2], "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        _mount("/dev/shm", "tmpfs", "shm", *quiet, "mode=1777", "size=65536k"),
        _mount("/dev/mqueue", "mqueue", "mqueue", *quiet),
        _mount("/sys", "sysfs", "sysfs", *quiet, *sys),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", *quiet, "relatime", *sys),
    ]


def _mounts(wanted: Wanted) -> list[dict[str, Any]]:
    by_path = {mount["destination"]: mount for mount in _kernel_mounts(wanted.security.privileged)}
    for path, source in wanted.files.items():
        # A file that is the host's own is only looked at; the sandbox's own files may be changed from inside.
        access = "ro" if path == source else "rw"
        by_path[path] = _mount(path, "bind", source, "rbind", "rprivate", access, "nosuid", "nodev")
    if wanted.init:
        by_path[INIT] = _mount(INIT, "bind", wanted.init, "bind", "rprivate", "ro", "nosuid", "nodev")
    for mount in wanted.mounts:
        path = _inside(mount.path, "mount path")
        if path == "/" or any(_is_below(path, folder) for folder in ("/proc", "/sys")) or path == "/dev":
            raise Invalid(f"nothing can be mounted at {path}")
        by_path[path] = _wanted_mount(mount, path, wanted.security.privileged)
    # Parents first, else a parent would hide what was mounted in it.
    return sorted(by_path.values(), key=lambda mount: str(mount["destination"]).count("/"))


def _wanted_mount(mount: Mount, path: str, privileged: bool) -> dict[str, Any]:
    access = "ro" if mount.read_only else "rw"
    match mount.kind:
        case MountKind.BIND:
            if not mount.source.startswith("/"):
                raise Invalid(f"mount {path}: source {mount.source!r} is not an absolute path")
            nodev = () if privileged else ("nodev",)
            return _mount(path, "bind", mount.source, "rbind", "rprivate", access, *nodev, *mount.options)
        case MountKind.TMPFS:
            size = (f"mode={mount.mode:o}", *((f"size={mount.size}",) if mount.size else ()))
            return _mount(path, "tmpfs", "tmpfs", "nosuid", "nodev", access, *size, *mount.options)


def _linux(wanted: Wanted, capabilities: list[str], node: Node) -> dict[str, Any]:
    security = wanted.security
    devices = node.devices if security.privileged else security.devices
    result: dict[str, Any] = {
        "cgroupsPath": wanted.cgroup,
        "namespaces": _namespaces(wanted.namespaces),
        "resources": resources(wanted.resources, node) | {"devices": _device_rules(security)},
        "devices": [device.to_oci() for device in devices],
        "rootfsPropagation": "rprivate",
    }
    if wanted.first_id:
        if max(wanted.user.uid, wanted.user.gid, *wanted.user.groups, 0) >= IDS:
            raise Invalid(f"user {wanted.user} has ids that are not below {IDS}", advice="Its namespace has that many.")
        ids = [{"containerID": 0, "hostID": wanted.first_id, "size": IDS}]
        result |= {"uidMappings": ids, "gidMappings": ids}
    if not security.privileged:
        result |= {"maskedPaths": list(MASKED_PATHS), "readonlyPaths": list(READONLY_PATHS)}
    if not (security.privileged or security.unconfined):
        profile = security.seccomp
        result["seccomp"] = dict(profile) if profile is not None else seccomp.default(capabilities, node.architecture)
    return result


def _namespaces(shared: Mapping[str, str]) -> list[dict[str, str]]:
    new = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup") if kind not in shared]
    return new + [{"type": kind, "path": path} for kind, path in sorted(shared.items())]


def _device_rules(security: Security) -> list[dict[str, Any]]:
    if security.privileged:
        return [{"allow": True, "access": "rwm"}]
    return [{"allow": False, "access": "rwm"}, *(device.to_rule() for device in security.devices)]
