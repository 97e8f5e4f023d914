"""The specification that a runtime was given (OCI runtime-spec 1.x) as the spec of a Container.

Rules of this file: what containerd tells every container is `default`; what this one was told beside is moved, or
dropped with what to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from decimal import Decimal
from typing import Any, Final

from core.values import dataclass
from migrations.config.work import Outcome
from migrations.manifests.amounts import cpu, size
from migrations.manifests.given import Account, Given, Rule, follow
from migrations.manifests.making import LATER_WHY, Settings, absolute, is_env_name, is_sysctl, mountable, pairs

_USUAL: Final = "every container is told so"
_CAPABILITIES: Final = frozenset(
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP"),
        *("NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
    )
)
"""What containerd gives everyone, as we do."""
_CPUS: Final = re.compile(r"[0-9]{1,5}(?:-[0-9]{1,5})?(?:,[0-9]{1,5}(?:-[0-9]{1,5})?)*")
_ALL: Final = 37
"""So many capabilities that only all of them are meant."""
_OWN_MOUNTS: Final = ("/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/run", "/sys/fs/cgroup")
_OWN_FILES: Final = ("/etc/resolv.conf", "/etc/hosts", "/etc/hostname")
_HOOKS: Final = "hooks are not run; networks are the agent's own matter"
_NAMESPACES: Final = ("pid", "ipc", "uts", "mount", "network", "cgroup")


@dataclass(slots=True)
class Process:
    """The spec of one container on its way; without one, everything is the image's."""

    account: Account
    settings: Settings
    spec: Given | None
    where: str
    made: dict[str, Any] = field(default_factory=dict)

    def read(self) -> dict[str, Any]:
        """What the Container says. Raises `BadDocument`."""
        if self.spec is None:
            return {}
        process = self.spec.get("process")
        if process is not None:
            follow(self.account, process, self._process())
        self._mounts(self.spec.get("mounts"))
        if (only := self.spec.get("root", "readonly")) is not None:
            if only.truth():
                self.made.setdefault("security", {})["readOnlyRootfs"] = True
            self.account.moved(only, f"{self.where} security.readOnlyRootfs")
        linux = self.spec.get("linux")
        if linux is not None:
            self.made["resources"] = self._resources(linux.get("resources"))
            follow(self.account, linux, self._linux())
        usual: dict[str, Rule] = {
            "ociVersion": (Outcome.INERT, _USUAL),
            "root": (Outcome.INERT, "is prepared from the image"),
            "hostname": (Outcome.INERT, "the sandbox's name"),
            "annotations": (Outcome.INERT, "are for the runtime"),
            "hooks": (Outcome.DROPPED, _HOOKS),
        }
        follow(self.account, self.spec, usual)
        return self.made

    def own_network(self) -> bool:
        """Whether it has a network namespace of its own."""
        given = self.spec.get("linux", "namespaces") if self.spec is not None else None
        kinds = [one.get("type") for one in given.listing()] if given is not None else []
        return any(kind is not None and kind.string() == "network" for kind in kinds)

    def sysctls(self, where: str) -> dict[str, str]:
        """Those of its sandbox."""
        found: dict[str, str] = {}
        host = not self.own_network()
        for name, value, place in pairs(self.spec.get("linux", "sysctl") if self.spec is not None else None):
            if is_sysctl(name) and not (host and name.startswith("net.")):
                found[name] = value
                self.account.moved(place, f"{where} sysctls")
            else:
                self.account.dropped(place, "is the node's, not a sandbox's: set it on the node (sysctl.d)")
        return found

    # ------------------------------------------------------------------------------------------------------ process

    def _process(self) -> Mapping[str, Rule]:
        return {
            "args": self._args,
            "env": self._env,
            "cwd": self._cwd,
            "user": self._user,
            "terminal": self._terminal,
            "noNewPrivileges": self._privileges,
            "capabilities": self._capabilities,
            "rlimits": self._limits,
            "oomScoreAdj": (Outcome.DROPPED, "is not set"),
            "apparmorProfile": (Outcome.DROPPED, "AppArmor profiles are not set"),
            "selinuxLabel": (Outcome.DROPPED, "SELinux labels are not set"),
            "consoleSize": (Outcome.INERT, "a terminal says its own size"),
        }

    def _limits(self, given: Given) -> None:
        for one in given.listing():
            kind, hard = one.get("type"), one.get("hard")
            if kind is not None and hard is not None and (kind.string(), hard.string()) == ("RLIMIT_NOFILE", "1024"):
                self.account.default(one, _USUAL)
        self.account.dropped(given, "limits are the agent's own: say them in its unit (systemctl edit reconciler)")

    def _args(self, given: Given) -> None:
        if given.listing():
            self.made["command"] = [one.string() for one in given.listing()]
            self.account.translated(
                given, f"{self.where} command", "the whole command line, the image's part of it too"
            )

    def _env(self, given: Given) -> None:
        found = {name: value for name, value, _ in pairs(given) if is_env_name(name)}
        self.made["env"] = [{"name": name, "value": value} for name, value in found.items()]
        self.account.moved(given, f"{self.where} env", "the image's own are among them")

    def _cwd(self, given: Given) -> None:
        if absolute(given.string()):
            self.made["workingDir"] = given.string()
            self.account.moved(given, f"{self.where} workingDir")

    def _user(self, given: Given) -> None:
        uid, gid = given.get("uid"), given.get("gid")
        self.made["user"] = f"{uid.number() if uid is not None else 0}:{gid.number() if gid is not None else 0}"
        self.account.moved(uid, f"{self.where} user")
        self.account.moved(gid, f"{self.where} user")
        more = given.get("additionalGids")
        own = [gid.string() if gid is not None else "0"]
        if more is not None and [one.string() for one in more.listing()] == own:
            self.account.default(more)
        self.account.dropped(more, "a container has one group, and those that its user has in the image")
        self.account.inert(given.get("umask"), _USUAL)
        self.account.inert(given.get("username"), "uid says it")

    def _terminal(self, given: Given) -> None:
        if given.truth():
            self.made["tty"] = True
        self.account.moved(given, f"{self.where} tty")

    def _privileges(self, given: Given) -> None:
        self.made.setdefault("security", {})["noNewPrivileges"] = given.truth()
        self.account.moved(given, f"{self.where} security.noNewPrivileges")

    def _capabilities(self, given: Given) -> None:
        bounding = given.get("bounding")
        held = {one.string() for one in bounding.listing()} if bounding is not None else set()
        add, drop = sorted(held - _CAPABILITIES), sorted(_CAPABILITIES - held)
        if len(held) >= _ALL:
            add = ["ALL"]
        if not add and not drop:
            self.account.default(given, _USUAL)
            return
        if not held:
            drop = ["ALL"]
        changes = {key: value for key, value in (("add", add), ("drop", drop)) if value}
        self.made.setdefault("security", {})["capabilities"] = changes
        self.account.translated(given, f"{self.where} security.capabilities", "as changes to what everyone has")

    # ------------------------------------------------------------------------------------------------ mounts, limits

    def _mounts(self, given: Given | None) -> None:
        found: dict[str, dict[str, Any]] = {}
        for one in given.listing() if given is not None else ():
            target, source, kind = (one.get(key) for key in ("destination", "source", "type"))
            path = target.string().rstrip("/") if target is not None else ""
            word = kind.string() if kind is not None else "bind"
            if path in _OWN_MOUNTS or path in _OWN_FILES or word in ("cgroup", "sysfs", "proc", "mqueue", "devpts"):
                self.account.inert(one, _USUAL)
                continue
            options = (
                [option.string() for option in (one.get("options") or one).listing()] if one.get("options") else []
            )
            mount = _mount(word, source.string() if source is not None else "", options)
            if mount is None or not mountable(path):
                self.account.dropped(one, "only folders and files of the node, and tmpfs, are mounted so")
                continue
            found[path] = {"path": path, **mount}
            self.account.moved(one, f"{self.where} mounts")
        self.made["mounts"] = list(found.values())

    def _resources(self, given: Given | None) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if given is None:
            return found
        memory, quota, period = given.get("memory", "limit"), given.get("cpu", "quota"), given.get("cpu", "period")
        if memory is not None and (text := size(memory.number())):
            found["memory"] = text
        cores = _cores(quota, period)
        if cores:
            found["cpu"] = cores
            self.account.moved(quota, f"{self.where} resources.cpu")
            self.account.moved(period, f"{self.where} resources.cpu")
        for key in ("cpus", "mems"):
            if (chosen := given.get("cpu", key)) is not None and _CPUS.fullmatch(chosen.string()):
                found.setdefault("cpuset", {})[key] = chosen.string()
                self.account.moved(chosen, f"{self.where} resources.cpuset.{key}")
        if (pids := given.get("pids", "limit")) is not None and 0 < pids.number() <= 4194304:
            found["pids"] = pids.number()
        self.account.moved(memory, f"{self.where} resources.memory")
        self.account.moved(pids, f"{self.where} resources.pids")
        self.account.inert(given.get("devices"), _USUAL)
        self.account.inert(given.get("cpu", "shares"), "shares are not set: limits are")
        self.account.dropped(given, "there is no such limit here: cpu, memory and pids")
        return found

    def _linux(self) -> Mapping[str, Rule]:
        def devices(given: Given) -> None:
            listed: list[str] = []
            for one in given.listing():
                path = one.get("path")
                if path is not None and absolute(path.string()):
                    listed.append(path.string())
            if listed:
                self.made.setdefault("security", {})["devices"] = listed
            self.account.moved(given, f"{self.where} security.devices")

        def namespaces(given: Given) -> None:
            kinds = {kind.string() for one in given.listing() if (kind := one.get("type")) is not None}
            if "user" in kinds:
                self.account.dropped(given, f"user namespaces: {LATER_WHY}")
            self.account.translated(given, "", "those of its sandbox, and its own")

        return {
            "namespaces": namespaces,
            "devices": devices,
            "uidMappings": (Outcome.DROPPED, "the ids are the node's"),
            "gidMappings": (Outcome.DROPPED, "the ids are the node's"),
            "cgroupsPath": (Outcome.INERT, "control groups are the agent's own"),
            "maskedPaths": (Outcome.INERT, _USUAL),
            "readonlyPaths": (Outcome.INERT, _USUAL),
            "seccomp": (Outcome.INERT, "the default filter is set, or write security.seccomp: unconfined"),
            "rootfsPropagation": (Outcome.INERT, _USUAL),
        }


def _mount(kind: str, source: str, options: list[str]) -> dict[str, Any] | None:
    read_only = {"readOnly": True} if "ro" in options else {}
    if kind == "tmpfs":
        return {"tmpfs": {}, **read_only}
    if (kind in ("bind", "none") or {"bind", "rbind"} & set(options)) and absolute(source):
        return {"bind": {"source": source}, **read_only}
    return None


def _cores(quota: Given | None, period: Given | None) -> str:
    """The processors that a quota of a period is; "" where there is no limit."""
    if quota is None or period is None or period.number() <= 0 or quota.number() <= 0:
        return ""
    return cpu(Decimal(quota.number()) / Decimal(period.number()))
