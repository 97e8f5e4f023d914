"""What a Container may do beside running: capabilities, system calls, devices, profiles."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import Field

from reconciler.model.kinds.base import Listed, Spec
from reconciler.model.kinds.capabilities import CapabilityName
from reconciler.model.kinds.quantities import read_by
from reconciler.model.kinds.texts import matching, parse_absolute
from reconciler.model.problems import Wrong, excerpt

DEFAULT: Final = "default"
UNCONFINED: Final = "unconfined"
_PROFILE: Final = re.compile(r"[A-Za-z0-9_./][-A-Za-z0-9_.+/:]{0,127}")


def _seccomp(value: object) -> str:
    """`default`, `unconfined`, or the absolute path of a profile on the node."""
    if value in (DEFAULT, UNCONFINED):
        return str(value)
    if isinstance(value, str) and "/" not in value:
        raise Wrong(f"{excerpt(value)} is not known here", "write default, unconfined, or the path of a profile")
    return parse_absolute(value)


_apparmor: Final = matching(
    _PROFILE, "is not the name of an AppArmor profile", "write the name of a profile that is loaded, or unconfined"
)
_CDI: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*[A-Za-z0-9]/[A-Za-z][A-Za-z0-9_-]*=[A-Za-z0-9][A-Za-z0-9_.:-]*")


def _device(value: object) -> str:
    """The path of a device node, or the name of a CDI device."""
    if isinstance(value, str) and not value.startswith("/"):
        if _CDI.fullmatch(value):
            return value
        raise Wrong("is no device", "write the path of a device node, or a CDI name: vendor.com/class=name")
    return parse_absolute(value)


DeviceName = Annotated[str, *read_by(_device, {"pattern": f"^(?:/.*|{_CDI.pattern})$"})]
SeccompProfile = Annotated[str, *read_by(_seccomp, {"pattern": "^(?:default|unconfined|/.*)$"})]
AppArmorProfile = Annotated[str, *read_by(_apparmor, {"pattern": f"^(?:{_PROFILE.pattern})$"})]


class Capabilities(Spec):
    """Changes to the default set, as `CAP_…` names; `ALL` stands for every one, and `drop` goes first."""

    add: Listed[CapabilityName] = ()
    drop: Listed[CapabilityName] = ()


class Security(Spec):
    """What the container may do; `devices`: device nodes of this node that it gets, at the same path, and devices
    by their CDI names.

    `privileged`: everything that root on the node may, where the node's configuration allows it: every capability but
    those dropped, every device, no profile, whatever else is written here. `seccomp`: `default`,
    `unconfined`, or the absolute path of a profile on the node; `apparmor`: the name of a loaded profile, or
    `unconfined`; None: as the runtime leaves it.
    """

    read_only_rootfs: bool = Field(False, alias="readOnlyRootfs")
    privileged: bool = False
    capabilities: Capabilities = Capabilities.model_construct()
    no_new_privileges: bool = Field(True, alias="noNewPrivileges")
    seccomp: SeccompProfile = DEFAULT
    apparmor: AppArmorProfile | None = None
    devices: Listed[DeviceName] = ()

    @property
    def device_nodes(self) -> tuple[str, ...]:
        """The devices that are named by path."""
        return tuple(name for name in self.devices if name.startswith("/"))

    @property
    def cdi_devices(self) -> tuple[str, ...]:
        """The devices that are named as the CDI has them."""
        return tuple(name for name in self.devices if not name.startswith("/"))

    @property
    def seccomp_file(self) -> str:
        """The path of the seccomp profile; "": it is none of a file's."""
        return "" if self.seccomp in (DEFAULT, UNCONFINED) else self.seccomp
