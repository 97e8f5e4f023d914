"""A machine's card in the network of its sandbox: what comes in on the sandbox's interface goes to it, and back.

Rules of this file: the interface that CNI made keeps its address, by which it is found and checked; its packets are
redirected, before this node's own stack sees them, to the tap and back (tc-mirred(8)). The guest has that address and
that hardware address, so nothing outside sees a difference. Whether they are joined is seen on the interface that is
there now: it may have been made anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from core.errors import Failed
from core.process import Launcher, Result, find

TAP: Final = "tap0"
_SECONDS: Final = 20.0


def is_joined(netns: Path, launcher: Launcher) -> bool:
    """Whether the interface in `netns` is joined to the tap, or there is none. Raises `Failed`, `MissingTool`."""
    words = ("filter", "show", "dev")
    seen = (_ask(netns, launcher, "tc", *words, name, "parent", "ffff:") for name in _interfaces(netns, launcher))
    return all(f"to device {TAP})" in one.text() for one in list(seen)[:1])


def join(netns: Path, launcher: Launcher) -> None:
    """Join the interface in `netns` to the tap; nothing where there is none. Raises `Failed`, `MissingTool`."""
    for name in _interfaces(netns, launcher):
        for one, other in ((name, TAP), (TAP, name)):
            _run(netns, launcher, "tc", "qdisc", "replace", "dev", one, "ingress")
            _run(
                *(netns, launcher, "tc", "filter", "replace", "dev", one, "parent", "ffff:", "protocol", "all"),
                *("prio", "1", "handle", "800::1", "u32", "match", "u8", "0", "0"),
                *("action", "mirred", "egress", "redirect", "dev", other),
            )
        break


def described(netns: Path, launcher: Launcher) -> list[dict[str, Any]]:
    """What the guest's card is to be: `mac`, `mtu`, `addresses` (CIDR) and `routes` ({to, via}) of the interface."""
    found = []
    for name, seen in _interfaces(netns, launcher).items():
        addresses = [
            f"{one['local']}/{one['prefixlen']}" for one in seen.get("addr_info", ()) if one.get("scope") == "global"
        ]
        routes = [
            {"to": one["dst"], "via": one["gateway"]}
            for family in ("-4", "-6")
            for one in json.loads(_run(netns, launcher, "ip", "-j", family, "route", "show", "dev", name) or "[]")
            if one.get("gateway")
        ]
        found.append({"mac": seen["address"], "mtu": seen["mtu"], "addresses": addresses, "routes": routes})
    return found[:1]


def _interfaces(netns: Path, launcher: Launcher) -> dict[str, dict[str, Any]]:
    seen = json.loads(_run(netns, launcher, "ip", "-j", "address", "show") or "[]")
    return {one["ifname"]: one for one in seen if one.get("ifname") not in ("lo", TAP) and one.get("addr_info")}


def _ask(netns: Path, launcher: Launcher, program: str, *words: str) -> Result:
    argv = [find("nsenter", "util-linux"), f"--net={netns}", find(program, "iproute2"), *words]
    return launcher.run(argv, timeout=_SECONDS)


def _run(netns: Path, launcher: Launcher, program: str, *words: str) -> str:
    done = _ask(netns, launcher, program, *words)
    if done.code != 0:
        raise Failed(f"{program} {' '.join(words[:4])}: {done.complaint()}")
    return done.text()
