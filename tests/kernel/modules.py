"""Modules of the machine's kernel that a guest has no use for and a node has: fetched once, in the order of loading."""

from __future__ import annotations

import fcntl
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from core.process import Launcher
from core.runtime.vm import image, kernels
from core.runtime.vm.packages import Apt, Package

CACHE: Final = Path("/var/cache/reconciler-test")
WANTED: Final[Mapping[str, tuple[str, ...]]] = {
    "node": (
        *("veth", "bridge", "tun", "nf_tables", "nft_compat", "xt_mark", "nf_conntrack_netlink"),
        *("unix_diag", "inet_diag", "tcp_diag", "udp_diag", "raw_diag", "af_packet_diag", "netlink_diag"),
    )
}
"""What CRIU asks of a kernel, and what a container's network is made of."""


def fetched(guest: Path) -> dict[str, bytes]:
    """The modules that are wanted, in the order of loading, for the kernel of the guest in that folder.

    Raises `Unavailable` where its package cannot be had.
    """
    packages: dict[str, str] = image.read(guest)["packages"]
    name = next(name for name in packages if name.startswith("linux-image-"))
    folder = CACHE / f"modules-{packages[name].replace(':', '_')}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".modules.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if json.loads(_text(folder / "wanted.json")) != list(WANTED["node"]):
            _fetch(Package(name, packages[name], ""), folder)
    return {one: (folder / f"{one}.ko").read_bytes() for one in (folder / "order").read_text().split()}


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else "null"


def _fetch(package: Package, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with tempfile.TemporaryDirectory() as work:
        apt = Apt(Launcher())
        apt.unpack(apt.fetch([package], Path(work)), Path(work) / "tree")
        taken, orders = kernels.modules(Path(work) / "tree", WANTED)
    for name, data in taken.items():
        (folder / f"{name}.ko").write_bytes(data)
    (folder / "order").write_text(" ".join(orders["node"]))
    (folder / "wanted.json").write_text(json.dumps(WANTED["node"]))
