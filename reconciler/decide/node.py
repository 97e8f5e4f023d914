"""What the node says of itself: is its disk full, was its store lost, is its configuration in force."""

from __future__ import annotations

from typing import Final

from reconciler.decide.facts import Disk, NodeFacts
from reconciler.decide.summary import Detail

FULL_BELOW: Final = 0.05
"""The share of bytes or inodes that must be free; below it the disk is said to be under pressure."""
DISK_PRESSURE: Final = "DiskPressure"
STORE_REBUILT: Final = "StoreRebuilt"
CONFIG_INVALID: Final = "ConfigInvalid"
RESTART_NEEDED: Final = "RestartNeeded"


def node_detail(facts: NodeFacts) -> Detail:
    """Ready always: what holds it up is told by conditions of its own, each there only while it is so."""
    conditions = []
    if pressure := disk_pressure(facts.disk):
        conditions.append((DISK_PRESSURE, True, *pressure))
    if facts.notice:
        conditions.append((STORE_REBUILT, True, "Lost", facts.notice))
    if facts.refused:
        conditions.append((CONFIG_INVALID, True, "Refused", f"the last good one stays in force: {facts.refused}"))
    if facts.waiting:
        keys = ", ".join(facts.waiting)
        conditions.append((RESTART_NEEDED, True, "ConfigChanged", f"restart the agent to bring into force: {keys}"))
    return Detail(True, "Stored", "", dict(facts.detail), tuple(conditions))


def disk_pressure(disk: Disk) -> tuple[str, str] | None:
    """Reason and message when the file system of root cannot take much more; None: it can."""
    if disk.read_only:
        return "ReadOnly", "the file system that holds root is read-only: mount it writable again"
    if disk.free_bytes < FULL_BELOW * disk.bytes:
        return "OutOfSpace", f"{disk.free_bytes >> 20} MiB of {disk.bytes >> 20} are free where root lies"
    if disk.free_inodes < FULL_BELOW * disk.inodes:
        return "OutOfInodes", f"{disk.free_inodes} of {disk.inodes} inodes are free where root lies"
    return None
