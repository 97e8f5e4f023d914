"""What a compose service may use and do."""

from __future__ import annotations

import re
from typing import Any, Final

from core.values import dataclass
from migrations.manifests.amounts import cores, cpu, docker_size
from migrations.manifests.compose_stage import Part
from migrations.manifests.given import Given
from migrations.manifests.making import LATER_WHY, absolute, texts

_CPUS: Final = re.compile(r"[0-9]{1,5}(?:-[0-9]{1,5})?(?:,[0-9]{1,5}(?:-[0-9]{1,5})?)*")
_MOST_PIDS: Final = 4194304


@dataclass(slots=True)
class Confinement(Part):
    """Limits and privileges of one service."""

    def resources(self) -> dict[str, Any]:
        """Its limits, of `deploy` and its own, which win."""
        found: dict[str, Any] = {}
        limits = self.given.get("deploy", "resources", "limits")
        for ours, own, deployed in (("cpu", "cpus", "cpus"), ("memory", "mem_limit", "memory")):
            deep = limits.get(deployed) if limits is not None else None
            for given in (deep, self.given.get(own)):
                if given is None:
                    continue
                text = cpu(cores(given.string())) if ours == "cpu" else docker_size(given.string())
                if text:
                    found[ours] = text
                    self.account.moved(given, f"{self.where} resources.{ours}")
                else:
                    self.account.dropped(given, "is no amount, or none at all: there is no limit")
        self._processors_and_disks(found)
        deep = limits.get("pids") if limits is not None else None
        for given in (deep, self.given.get("pids_limit")):
            if given is not None and 0 < given.number() <= _MOST_PIDS:
                self.account.moved(given, f"{self.where} resources.pids")
            else:
                self.account.default(given, "there is no limit")
        counts = [given.number() for given in (deep, self.given.get("pids_limit")) if given is not None]
        if counts and 0 < counts[-1] <= _MOST_PIDS:
            found["pids"] = counts[-1]
        return found

    def _processors_and_disks(self, found: dict[str, Any]) -> None:
        """Which processors, and which part of the disks' time."""
        cpuset, weight = self.given.get("cpuset"), self.given.get("blkio_config", "weight")
        if cpuset is not None and _CPUS.fullmatch(cpuset.string()):
            found["cpuset"] = {"cpus": cpuset.string()}
            self.account.moved(cpuset, f"{self.where} resources.cpuset.cpus")
        if weight is not None and 10 <= weight.number() <= 1000:
            found["ioWeight"] = weight.number()
            self.account.moved(weight, f"{self.where} resources.ioWeight")

    def security(self) -> dict[str, Any]:
        """What it may do. Raises `BadDocument`."""
        made: dict[str, Any] = {}
        names: dict[str, list[str]] = {}
        for theirs, ours in (("cap_add", "add"), ("cap_drop", "drop")):
            if (given := self.given.get(theirs)) is not None and texts(given):
                names[ours] = list(dict.fromkeys(text.upper() for text in texts(given)))
                self.account.moved(given, f"{self.where} security.capabilities.{ours}")
        made["capabilities"] = names
        if (given := self.given.get("read_only")) is not None:
            made["readOnlyRootfs"] = given.truth()
            self.account.moved(given, f"{self.where} security.readOnlyRootfs")
        if (given := self.given.get("privileged")) is not None:
            if given.truth() and "Container.security.privileged" not in self.stage.settings.later:
                made["privileged"] = True
                self.account.moved(given, f"{self.where} security.privileged")
            elif given.truth():
                self.account.dropped(given, f"{LATER_WHY}: name capabilities and devices")
            self.account.default(given)
        for one in _items(self.given.get("security_opt")):
            self._option(one, made)
        devices = [path for one in _items(self.given.get("devices")) if (path := self._device(one))]
        made["devices"] = list(dict.fromkeys(devices))
        return {key: value for key, value in made.items() if value not in ({}, [])}

    def _option(self, one: Given, made: dict[str, Any]) -> None:
        name, _, value = one.string().replace("=", ":").partition(":")
        if name == "no-new-privileges" and value in ("", "true", "false"):
            made["noNewPrivileges"] = value != "false"
            self.account.moved(one, f"{self.where} security.noNewPrivileges")
        elif name == "seccomp" and value == "unconfined":
            made["seccomp"] = "unconfined"
            self.account.moved(one, f"{self.where} security.seccomp")
        else:
            self.account.dropped(one, "is not set here; seccomp and no-new-privileges are")

    def _device(self, one: Given) -> str:
        parts = one.string().split(":") if one.fields is None else []
        if parts and absolute(parts[0]) and parts[1:2] in ([], [parts[0]]) and parts[2:] in ([], ["rwm"]):
            self.account.moved(one, f"{self.where} security.devices")
            return parts[0]
        self.account.dropped(one, "a device is at the same path, and may be read, written and made")
        return ""


def _items(given: Given | None) -> list[Given]:
    return given.listing() if given is not None else []
