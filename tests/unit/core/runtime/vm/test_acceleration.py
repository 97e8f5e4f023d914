"""KVM is used only where a guest was seen to boot by it; the answer is kept as long as it holds."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from core.clock import SystemClock
from core.process import Launcher
from core.runtime.vm.acceleration import Kvm
from core.runtime.vm.installed import Installed

_PLAYED: Final = """#!{python} -S
import os, socket, struct, sys, time
open({folder!r} + "/started", "a").write(str(os.getpid()) + "\\n")
assert sys.argv[sys.argv.index("-accel") + 1] == "kvm"
word = next(word for word in sys.argv if word.startswith("socket,id=guest,fd="))
guest = socket.socket(fileno=int(word.rpartition("=")[2]))
manner = open({folder!r} + "/manner").read()
if manner == "aborts":
    os.abort()
if manner == "hangs":
    time.sleep(1000)
length, call, kind = struct.unpack(">IIB", guest.recv(9))
guest.recv(length)
said = b'{{"version": 1}}' if manner == "answers" else b"nonsense"
guest.sendall(struct.pack(">IIB", len(said) if manner == "answers" else 1 << 30, call, 2) + said)
time.sleep(1000)
"""
"""A program that plays QEMU and the guest in it."""


class Node:
    """A node with a played QEMU."""

    def __init__(self, folder: Path, manner: str) -> None:
        self.folder = folder
        for name in ("kernel", "initramfs", "kvm"):
            (folder / name).write_text(name)
        (folder / "manner").write_text(manner)
        qemu = folder / "qemu"
        qemu.write_text(_PLAYED.format(python=sys.executable, folder=str(folder)))
        qemu.chmod(0o755)
        self.found = Installed(str(qemu), str(folder / "kernel"), str(folder / "initramfs"), "")

    def kvm(self, boot: str = "this boot", device: str = "kvm", seconds: float = 60.0) -> Kvm:
        """As an engine has it."""
        place = self.folder / "cache"
        return Kvm(place, Launcher(), SystemClock(), boot, self.folder / device, seconds)

    @property
    def started(self) -> list[int]:
        """The processes of QEMU that were started so far."""
        path = self.folder / "started"
        return [int(line) for line in path.read_text().split()] if path.exists() else []


def test_a_guest_that_answers_proves_kvm_and_is_booted_once(tmp_path: Path) -> None:
    node = Node(tmp_path, "answers")
    assert node.kvm().known(node.found) is None
    assert node.kvm().accelerator(node.found) == "kvm"
    assert node.kvm().accelerator(node.found) == "kvm"
    assert node.kvm().known(node.found) is True
    assert len(node.started) == 1
    assert not os.path.exists(f"/proc/{node.started[0]}")


@pytest.mark.parametrize(("manner", "seconds"), [("aborts", 60.0), ("hangs", 0.2), ("speaks nonsense", 60.0)])
def test_whatever_is_not_a_yes_means_tcg_and_is_not_tried_again(tmp_path: Path, manner: str, seconds: float) -> None:
    node = Node(tmp_path, manner)
    assert node.kvm(seconds=seconds).accelerator(node.found) == "tcg"
    assert node.kvm(seconds=seconds).accelerator(node.found) == "tcg"
    assert node.kvm().known(node.found) is False
    assert len(node.started) <= 1
    assert [pid for pid in node.started if os.path.exists(f"/proc/{pid}")] == []


def test_a_node_without_the_device_boots_nothing(tmp_path: Path) -> None:
    node = Node(tmp_path, "answers")
    assert node.kvm(device="none").accelerator(node.found) == "tcg"
    assert node.started == []


def test_another_boot_or_another_kernel_is_asked_anew(tmp_path: Path) -> None:
    node = Node(tmp_path, "aborts")
    assert node.kvm().accelerator(node.found) == "tcg"
    (tmp_path / "manner").write_text("answers")
    assert node.kvm("the next boot").accelerator(node.found) == "kvm"
    (tmp_path / "kernel").write_text("a newer kernel")
    assert node.kvm("the next boot").known(node.found) is None
    assert node.kvm("the next boot").accelerator(node.found) == "kvm"
    assert len(node.started) == 3


def test_each_kernel_has_an_answer_of_its_own(tmp_path: Path) -> None:
    node = Node(tmp_path, "aborts")
    (tmp_path / "mine").write_text("a kernel of a sandbox's own")
    mine = replace(node.found, kernel=str(tmp_path / "mine"))
    assert node.kvm().accelerator(mine) == "tcg"
    (tmp_path / "manner").write_text("answers")
    assert node.kvm().accelerator(node.found) == "kvm"
    assert (node.kvm().known(mine), node.kvm().known(node.found)) == (False, True)


@pytest.mark.parametrize("text", ["", "[]", '{"x": 1}', "\x00"])
def test_a_damaged_answer_is_asked_for_anew(tmp_path: Path, text: str) -> None:
    node = Node(tmp_path, "answers")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "kvm.json").write_text(text)
    assert node.kvm().known(node.found) is None
    assert node.kvm().accelerator(node.found) == "kvm"
