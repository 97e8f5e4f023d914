"""What a Container may do beside running: capabilities, system calls, devices, profiles."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import Field

from reconciler.model.kinds.base import Listed, Spec
from reconciler.model.kinds.capabilities import CapabilityName
from reconciler.model.kinds.quantities import read_by
from reconciler.model.kinds.texts import Base64, decoded_base64, matching, parse_absolute, parse_relative
from reconciler.model.problems import Wrong, excerpt

DEFAULT: Final = "default"
UNCONFINED: Final = "unconfined"
_JSON: Final = ".json"
_PROFILE: Final = re.compile(r"[A-Za-z0-9_./][-A-Za-z0-9_.+/:]{0,127}")
_BESIDE: Final = ("./", "../")


def _seccomp(value: object) -> str:
    """`default`, `unconfined`, or the path of a profile: absolute on the node, else relative to the manifest's file."""
    if value in (DEFAULT, UNCONFINED):
        return str(value)
    if not isinstance(value, str) or value.startswith("/"):
        return parse_absolute(value)
    if "/" not in value and not value.endswith(_JSON):
        raise Wrong(
            f"{excerpt(value)} is not known here",
            "write default, unconfined, or the path of a profile, such as ./strict.json",
        )
    return parse_relative(value)


def is_beside(seccomp: str) -> bool:
    """Whether a valid `seccomp` is the path of a profile relative to the manifest's file."""
    return not seccomp.startswith("/") and seccomp not in (DEFAULT, UNCONFINED)


_named: Final = matching(
    _PROFILE,
    "is not the name of an AppArmor profile",
    "write the name of a profile that is loaded, the path of one, such as ./strict.profile, or unconfined",
)


def _apparmor(value: object) -> str:
    """`unconfined`, a loaded profile's name, or a path: absolute on the node, or `./…` beside the manifest's file."""
    return parse_relative(value) if isinstance(value, str) and value.startswith(_BESIDE) else _named(value)


def apparmor_is_beside(apparmor: str | None) -> bool:
    """Whether a valid `apparmor` is the path of a profile relative to the manifest's file."""
    return apparmor is not None and apparmor.startswith(_BESIDE)


_CDI: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*[A-Za-z0-9]/[A-Za-z][A-Za-z0-9_-]*=[A-Za-z0-9][A-Za-z0-9_.:-]*")


def _device(value: object) -> str:
    """The path of a device node, or the name of a CDI device."""
    if isinstance(value, str) and not value.startswith("/"):
        if _CDI.fullmatch(value):
            return value
        raise Wrong("is no device", "write the path of a device node, or a CDI name: vendor.com/class=name")
    return parse_absolute(value)


DeviceName = Annotated[str, *read_by(_device, {"pattern": f"^(?:/.*|{_CDI.pattern})$"})]
SeccompProfile = Annotated[str, *read_by(_seccomp, {"pattern": r"^(?:default|unconfined|.*/.*|.*\.json)$"})]
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
    `unconfined`, the absolute path of a profile on the node, or the path of one beside the manifest, whose content came
    with it, in `seccomp_content`; `apparmor`: the name of a loaded profile, the absolute path of one, or `./…` of one
    beside the manifest, whose content came with it, in `apparmor_content`; or `unconfined`; None: as the runtime leaves
    it.
    """

    read_only_rootfs: bool = Field(False, alias="readOnlyRootfs")
    privileged: bool = False
    capabilities: Capabilities = Capabilities.model_construct()
    no_new_privileges: bool = Field(True, alias="noNewPrivileges")
    seccomp: SeccompProfile = DEFAULT
    seccomp_content: Base64 | None = Field(None, alias="seccompContent", repr=False)
    apparmor: AppArmorProfile | None = None
    apparmor_content: Base64 | None = Field(None, alias="apparmorContent", repr=False)
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

    @property
    def carried_seccomp(self) -> bytes | None:
        """The profile that came with the manifest; None: none did."""
        return None if self.seccomp_content is None else decoded_base64(self.seccomp_content)

    @property
    def carried_apparmor(self) -> bytes | None:
        """The AppArmor profile that came with the manifest; None: none did."""
        return None if self.apparmor_content is None else decoded_base64(self.apparmor_content)
