"""A machine's command line, and a task's spec as its guest needs it."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import Unsupported
from core.process import Launcher
from core.runtime.vm.boards import Boards
from core.runtime.vm.disks import serial
from core.runtime.vm.machine import TAG, Doors, Machine, command, plugged
from core.runtime.vm.translate import CARRIED, SHARED, SHM, translate

WANTED = Machine("/k", "/i", cpus=2, memory=512 << 20)


def words(wanted: Machine = WANTED, tap: int = -1) -> list[str]:
    return command(wanted, Doors(10, 11, 12, tap), "/usr/bin/qemu")


def after(option: str, found: list[str]) -> list[str]:
    """What stands behind each `option`."""
    return [found[at + 1] for at, word in enumerate(found) if word == option]


def test_a_machine_has_what_was_asked_for_and_qemu_adds_nothing() -> None:
    found = words()
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(found)
    assert after("-display", found) == ["none"]
    assert (after("-smp", found), after("-m", found)) == (["2"], ["512M"])
    assert (after("-kernel", found), after("-initrd", found), after("-accel", found)) == (
        ["/k"],
        ["/i"],
        ["tcg,tb-size=64"],
    )
    assert {"elevateprivileges=deny", "spawn=deny"} <= set(after("-sandbox", found)[0].split(","))


def test_sockets_of_a_machine_are_descriptors_without_a_name() -> None:
    assert sorted(after("-chardev", words())) == [
        "socket,id=console,fd=12",
        "socket,id=guest,fd=10",
        "socket,id=qmp,fd=11",
    ]


def test_a_card_and_a_share_are_there_only_when_they_are_asked_for() -> None:
    assert after("-netdev", words()) == []
    assert after("-netdev", words(tap=13)) == ["tap,id=net,fd=13"]
    assert not any(word.startswith("vhost-user-fs") for word in words())
    shared = words(Machine("/k", "/i", fs="fs"))
    assert any(word.startswith("vhost-user-fs") and word.endswith(f"tag={TAG}") for word in shared)


def test_a_machine_without_microvm_takes_devices_of_pci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    devices = [word.partition(",")[0] for word in after("-device", words(tap=13))]
    assert devices == ["virtio-serial-pci", "virtserialport", "virtio-scsi-pci", "virtio-net-pci"]


def test_an_arm_guest_has_its_own_console_and_a_processor_that_emulation_can_bear(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    emulated = command(Machine("/k", "/i"), Doors(3, 4, 5), "qemu")
    assert "max,pauth-impdef=on" in emulated
    assert any(word.startswith("console=ttyAMA0 ") for word in emulated)
    assert "max" in command(Machine("/k", "/i", accelerator="kvm"), Doors(3, 4, 5), "qemu")


def test_a_machine_on_another_board_than_microvm_takes_devices_of_pci_too() -> None:
    found = words(replace(WANTED, board="q35", fs="fs"), tap=13)
    assert after("-machine", found)[0].startswith("q35,")
    devices = [word.partition(",")[0] for word in after("-device", found)]
    assert devices == [
        "virtio-serial-pci",
        "virtserialport",
        "virtio-scsi-pci",
        "virtio-net-pci",
        "vhost-user-fs-pci",
    ]


def qemu(folder: Path, *boards: str) -> Path:
    """A QEMU that has these boards, and counts how often it is asked."""
    path = folder / "qemu"
    lines = "".join(f"{board:<20} some machine\n" for board in boards)
    path.write_text(f"#!/bin/sh\necho x >>{path}.asked\nprintf 'Supported machines are:\n{lines}'\n")
    path.chmod(0o755)
    return path


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other architectures have one board only")
def test_the_board_is_the_best_that_qemu_has_and_it_is_asked_once(tmp_path: Path) -> None:
    boards = Boards(Launcher())
    path = qemu(tmp_path, "pc", "q35", "microvm")
    assert [boards.choose(str(path)) for _ in range(2)] == ["microvm"] * 2
    os.rename(qemu(tmp_path, "pc", "q35"), tmp_path / "older")
    assert boards.choose(str(tmp_path / "older")) == "q35"
    with pytest.raises(Unsupported, match="none of the machines microvm, q35"):
        boards.choose(str(qemu(tmp_path, "pc")))
    assert len((tmp_path / "qemu.asked").read_text().split()) == 3


def test_a_board_that_is_asked_for_is_taken_unless_there_is_none_of_that_name() -> None:
    boards, there = Boards(Launcher()), "q35" if platform.machine() == "x86_64" else "virt"
    assert boards.choose("/nowhere", there) == there
    with pytest.raises(Unsupported, match="machines on 'toaster'"):
        boards.choose("/nowhere", "toaster")


def test_a_disk_is_raw_and_found_by_its_serial() -> None:
    (add, block), (plug, device) = plugged("r1", "/x", read_only=True)
    assert (add, plug) == ("blockdev-add", "device_add")
    assert (block["driver"], block["node-name"], block["read-only"]) == ("raw", "r1", True)
    assert (device["drive"], device["serial"]) == ("r1", "r1")
    assert len(serial("r", "x" * 300)) <= 20
    assert serial("r", "a") == serial("r", "a") != serial("r", "b")


def spec(**changes: Any) -> dict[str, Any]:
    linux = {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "network", "path": "/n"}], **changes}
    process = {"args": ["true"], "apparmorProfile": "ours"}
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev/shm", "type": "bind", "source": "/run/x/netns/box/shm"},
        {"destination": "/etc/hosts", "type": "bind", "source": "/run/x/netns/box/hosts"},
        {"destination": "/data", "type": "bind", "source": "/var/lib/x/volumes/data"},
        {"destination": "/again", "type": "bind", "source": "/var/lib/x/volumes/data", "options": ["ro"]},
        {"destination": "/odd", "type": "bind", "source": "/run/xylophone"},
    ]
    return {"process": process, "mounts": mounts, "linux": linux}


def test_what_is_ours_is_carried_and_what_is_the_nodes_is_shared() -> None:
    found = translate("one", spec(), "/run/x")
    assert found.carried == {"/run/x/netns/box/hosts": f"{CARRIED}/one/2"}
    assert found.shared == {"/var/lib/x/volumes/data": "one/3", "/run/xylophone": "one/5"}
    sources = {mount["destination"]: mount["source"] for mount in found.spec["mounts"]}
    assert sources == {
        "/proc": "proc",
        "/dev/shm": SHM,
        "/etc/hosts": f"{CARRIED}/one/2",
        "/data": f"{SHARED}/one/3",
        "/again": f"{SHARED}/one/3",
        "/odd": f"{SHARED}/one/5",
    }


def test_what_only_the_node_has_stays_behind_and_nothing_given_is_changed() -> None:
    given = spec()
    found = translate("one", given, "/run/x").spec
    assert [one["type"] for one in found["linux"]["namespaces"]] == ["pid", "mount"]
    assert found["linux"]["cgroupsPath"] == "/tasks/one"
    assert "apparmorProfile" not in found["process"]
    assert given == spec()


@pytest.mark.parametrize(
    "changes", [{"devices": [{"path": "/dev/kvm"}]}, {"namespaces": [{"type": "pid", "path": "/proc/1/ns/pid"}]}]
)
def test_what_cannot_be_had_in_a_machine_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Unsupported):
        translate("one", spec(**changes), "/run/x")
