"""Network configuration lists, read and made (CNI spec 1.0, section 1), and a subnet that nobody else uses.

Rules of this file: no I/O. A list comes from the machine's owner, who is trusted with it as with any program in its
folder of plugins; what is checked is that it is one, and that its words cannot lead elsewhere.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from core.errors import Invalid, Unsupported
from core.values import dataclass

VERSIONS: Final = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Of the specification; older ones give no result that can be passed on."""
MOST_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_PLUGIN: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
_MOST_PLUGINS: Final = 32
SUBNETS: Final = tuple(
    ipaddress.IPv4Network(f"10.{second}.{third}.0/24") for second in range(88, 120) for third in (0, 64, 128)
)
"""Those that the default network may take, in order."""


@dataclass(frozen=True, slots=True)
class NetworkList:
    """One network: its plugins in order, each as its own configuration. `whole` is the list as it was read."""

    name: str
    version: str
    plugins: tuple[Mapping[str, Any], ...]
    disable_check: bool = False

    def to_json(self) -> dict[str, Any]:
        """The form of a `.conflist` file; inverse of `parse`."""
        return {
            "cniVersion": self.version,
            "name": self.name,
            "disableCheck": self.disable_check,
            "plugins": [dict(plugin) for plugin in self.plugins],
        }

    def capability(self, name: str) -> bool:
        """Whether a plugin of it takes runtime configuration `name`, such as portMappings."""
        return any(plugin.get("capabilities", {}).get(name) is True for plugin in self.plugins)


def parse(data: bytes, file: str) -> NetworkList:
    """The list in `data`: a `.conflist`, or the one plugin of a `.conf`. Raises `Invalid`, `Unsupported`."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{file}: is not JSON: {error}", advice="Correct the file, or move it away.") from None
    if not isinstance(found, dict):
        raise Invalid(f"{file}: is no network configuration", advice="It is a JSON object with name and plugins.")
    plugins = found.get("plugins", [found])
    name, version = found.get("name"), found.get("cniVersion", "0.2.0")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Invalid(f"{file}: has no name that can be one", advice="Use letters, digits, '_', '-' and '.'.")
    if version not in VERSIONS:
        known = ", ".join(VERSIONS)
        raise Unsupported(f"{file}: cniVersion {version!r}", advice=f"Set it to one of {known}.")
    if not isinstance(plugins, list) or not 0 < len(plugins) <= _MOST_PLUGINS:
        raise Invalid(f"{file}: names no plugins, or more than {_MOST_PLUGINS}", advice="Give a list `plugins`.")
    for plugin in plugins:
        if not isinstance(plugin, dict) or not _is_plugin(plugin.get("type")):
            raise Invalid(f"{file}: a plugin has no type", advice='Give each one `"type"`, the name of its program.')
    return NetworkList(name, version, tuple(plugins), found.get("disableCheck") is True)


def _is_plugin(word: object) -> bool:
    return isinstance(word, str) and _PLUGIN.fullmatch(word) is not None


def choose(lists: Iterable[NetworkList], name: str) -> NetworkList | None:
    """The first list of that name; None when there is none."""
    return next((one for one in lists if one.name == name), None)


def default(name: str, bridge: str, subnet: str, leases: str) -> NetworkList:
    """A bridge of our own with addresses from `subnet`, and ports mapped. The way out is masqueraded by `own.Bridge`,
    once for all, since the plugin's own rules stay when a namespace is gone before they are taken away.

    `leases` is the folder in which `host-local` keeps who has which address; `bridge` at most 15 characters.
    """
    ipam = {
        "type": "host-local",
        "dataDir": leases,
        "ranges": [[{"subnet": subnet}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    own = {
        "type": "bridge",
        "bridge": bridge,
        "isGateway": True,
        "hairpinMode": True,
        "ipam": ipam,
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    return NetworkList(name, "1.0.0", (own, ports))


def free_subnet(taken: Sequence[str]) -> str:
    """The first of `SUBNETS` that overlaps with none of `taken` (`10.0.0.0/8`, …); raises `Unsupported`."""
    used = [ipaddress.IPv4Network(one, strict=False) for one in taken]
    for subnet in SUBNETS:
        if not any(subnet.overlaps(one) for one in used if one.prefixlen > 0):
            return str(subnet)
    raise Unsupported(
        "every subnet that the default network may take is routed by this host already",
        advice="Write a network configuration with a subnet of your own into the CNI folder.",
    )
