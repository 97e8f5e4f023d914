"""Hands and eyes for the networks of sandboxes: which list a name means, attach, detach, give back what leaked.

Rules of this file: a sandbox on the host's network, or with none, has nothing here. Attach and detach are harmless
twice. The default network's bridge is there while a sandbox is on it, and no longer.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final, Protocol

from core import fsio
from core.errors import AgentError, Failed, NotFound, from_os_error
from core.network.cni import Attachment, Cni, PortMapping
from core.network.conflist import MOST_BYTES, NetworkList, choose, parse
from core.network.own import NAME, Bridge
from reconciler.model.kinds.sandbox import Network

_log: Final = logging.getLogger(__name__)

SUFFIXES: Final = (".conf", ".conflist", ".json")


class Networks(Protocol):
    """What the engine needs of networks."""

    def attach(self, id: str, netns: str, wanted: Network) -> Attachment:
        """Attach sandbox `id`, whose network namespace is pinned at `netns`, or adopt what was done."""

    def configure(self, lists: Path, plugins: Sequence[str]) -> None:
        """From now on, look for lists and for plugins in these folders."""

    def attached(self, id: str) -> Attachment | None:
        """What it was attached to, whole, in this boot; None: nothing. Spawns nothing."""

    def detach(self, id: str) -> None:
        """Detach; harmless when it is not attached."""

    def sweep(self, known: Collection[str]) -> None:
        """Detach what belongs to none of the sandboxes `known`, and give back addresses that nobody has."""

    def inspect(self) -> Sequence[str]:
        """Have the next sandbox's network looked at closely; all, when it is amiss. What is amiss is detached: its ids.

        Called every so often: what a firewall that is loaded anew throws away is seen by nothing else.
        """


class CniNetworks:
    """Networks by CNI plugins; `lists` is the folder of the machine's own configuration lists."""

    def __init__(self, cni: Cni, own: Bridge, lists: Path, folder: Path) -> None:
        self._cni = cni
        self._own = own
        self._lists = lists
        self._lock = fsio.make_private(folder) / ".lock"
        self._turn = 0
        self._said: dict[str, str] = {}
        """What the plugins complained of when a sandbox was last well, by its id: mostly nothing."""

    def configure(self, lists: Path, plugins: Sequence[str]) -> None:
        """Look there for what is attached from now on."""
        self._lists = lists
        self._cni.plugins = tuple(plugins)

    def attach(self, id: str, netns: str, wanted: Network) -> Attachment:
        """Attach or adopt. Raises `NotFound` (no such network), and what `Cni.add` raises."""
        network = self.find(wanted.network)
        ports = [PortMapping(one.host, one.container, one.protocol, one.host_ip or "") for one in wanted.ports]
        with fsio.locked(self._lock, shared=True):  # nobody takes the bridge away meanwhile
            got = self._cni.add(id, netns, network, ports)
            if self._is_own(network):
                self._own.open()
        return got

    def attached(self, id: str) -> Attachment | None:
        """Read from its entry."""
        return self._cni.attached(id)

    def detach(self, id: str) -> None:
        """Detach; with the last one the bridge goes."""
        if id in self._cni.ids():
            self._cni.delete(id)
            self._tidy()

    def sweep(self, known: Collection[str]) -> None:
        """At an engine's start."""
        for id in [one for one in self._cni.ids() if one not in known]:
            self._cni.delete(id)
        self._cni.release_unknown(self._own.leases)
        self._tidy()

    def inspect(self) -> Sequence[str]:
        """By CHECK of the plugins, whose word is held against what they said of it before: some are never content."""
        ids = [*self._cni.ids()]
        self._said = {id: said for id, said in self._said.items() if id in ids}
        self._turn += 1
        if not ids or not self._amiss(ids[self._turn % len(ids)]):
            return ()
        found = [id for id in ids if self._amiss(id)]
        for id in found:
            del self._said[id]
            self._cni.delete(id)
        return found

    def _amiss(self, id: str) -> bool:
        """Whether the plugins have a complaint of it that they had not when they were first asked."""
        if self._cni.attached(id) is None:
            return False
        complaint = ""
        try:
            self._own.mend()
            self._cni.check(id)
        except Failed as error:
            complaint = str(error)
        except AgentError as error:
            _log.warning("the network of %s cannot be looked at: %s", id, error)
            return False
        if not complaint or complaint == self._said.setdefault(id, complaint):
            self._said[id] = complaint
            return False
        _log.warning("the network of %s is not as it was made: %s", id, complaint)
        return True

    def _tidy(self) -> None:
        lock = fsio.Lock(self._lock)
        if not lock.acquire(wait=False):
            return  # somebody attaches at this moment
        try:
            if not any(True for _ in self._cni.ids()):
                self._own.remove()
        finally:
            lock.release()

    def find(self, name: str) -> NetworkList:
        """The list of that name in the machine's folder, else for `default` our own. Raises `NotFound`, `Invalid`."""
        lists = self._read()
        if (found := choose(lists, name)) is not None:
            return found
        if name == NAME:
            return self._own.network()
        there = ", ".join(sorted({NAME, *(one.name for one in lists)}))
        advice = f"Correct `network.network`, or put a list of that name into {self._lists}."
        raise NotFound(f"this node has no network {name!r}; it has: {there}", advice=advice)

    def _read(self) -> list[NetworkList]:
        try:
            names = sorted(os.listdir(self._lists)) if self._lists.is_dir() else []
            files = [self._lists / name for name in names if name.endswith(SUFFIXES) and not name.startswith(".")]
            return [parse(fsio.read_bounded(file, MOST_BYTES), str(file)) for file in files]
        except OSError as error:
            raise from_os_error(error, f"reading {self._lists}") from error

    def _is_own(self, network: NetworkList) -> bool:
        return any(plugin.get("bridge") == self._own.device for plugin in network.plugins)


def name_address(hosts: Path, address: str, hostname: str) -> None:
    """Have a sandbox's own hosts file say that `hostname` is at `address`; before any container sees the file."""
    line = f"{address}\t{hostname}\n"
    text = hosts.read_text("utf-8")
    if line not in text:
        kept = [one for one in text.splitlines(keepends=True) if one.split()[1:] != [hostname]]
        hosts.write_text("".join([*kept, line]), "utf-8")  # in place: it is mounted as the file it is
