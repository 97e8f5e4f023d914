"""The guest's one network card, its routes, and its name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from core.runtime.vm.guest.asking import Given, Refused
from core.runtime.vm.guest.loop import Children, Job

_CARDS: Final = "/sys/class/net"
_IP: Final = "/bin/ip"


def configure(children: Children, given: Given) -> Job:
    """A job: what the call `network` asks for; may be asked again. Raises `Refused`."""
    name = given.text("hostname")
    with open("/proc/sys/kernel/hostname", "w") as file:
        file.write(name)
    interfaces = given.objects("interfaces")
    cards = sorted(name for name in os.listdir(_CARDS) if os.path.exists(f"{_CARDS}/{name}/device"))
    if len(interfaces) > len(cards):
        raise Refused("not supported", f"{len(interfaces)} networks for a machine with {len(cards)} network cards")
    for card, interface in zip(cards, interfaces, strict=False):
        for words in [*_link(card, interface), *_addresses(card, interface), *_routes(card, interface)]:
            yield from children.run([_IP, *words])


def _link(card: str, interface: Given) -> Iterator[list[str]]:
    yield ["link", "set", card, "down"]
    yield ["addr", "flush", "dev", card]
    yield ["link", "set", card, "address", interface.text("mac")]
    if interface.has("mtu") and (mtu := interface.number("mtu")):
        yield ["link", "set", card, "mtu", str(mtu)]
    yield ["link", "set", card, "up"]


def _addresses(card: str, interface: Given) -> Iterator[list[str]]:
    for address in interface.texts("addresses"):
        family = ["-6"] if ":" in address else []
        yield [*family, "addr", "add", address, "dev", card]


def _routes(card: str, interface: Given) -> Iterator[list[str]]:
    for route in sorted(interface.objects("routes"), key=lambda route: route.has("via")):  # a gateway's own way first
        to = route.text("to")
        via = ["via", route.text("via")] if route.has("via") and route.text("via") else []
        family = ["-6"] if ":" in to else []
        yield [*family, "route", "replace", to, *via, "dev", card]
