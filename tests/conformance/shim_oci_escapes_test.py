"""The published ways out of runc's containers, 2019 to 2025, each by its number, with the runtimes of this machine.

Whether a runtime itself still has the fault, its maker says; what is shown here is that a task as we ask for it (its
spec, its descriptors, its mounts) does not lead out, and leaves the node's files as they were.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from core.errors import AgentError, Invalid
from core.runtime import spec
from core.runtime.ports import ExecSpec
from tests.conformance import shim_oci_confinement_test as confinement
from tests.conformance.shim_contract import running, said
from tests.conformance.shim_ground import OciGround, make_root, skip_unless_possible
from tests.runtimes import RUNTIMES

pytestmark = pytest.mark.root

_CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
_STARTS = 12


@pytest.fixture
def root(tmp_path: Path) -> Path:
    skip_unless_possible()
    return make_root(tmp_path / "root")


@pytest.fixture(params=RUNTIMES)
def ground(tmp_path: Path, root: Path, request: pytest.FixtureRequest) -> Iterator[OciGround]:
    before = _CORE_PATTERN.read_text()
    ground = OciGround(tmp_path, root, request.param)
    yield ground
    ground.end()
    assert _CORE_PATTERN.read_text() == before


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_a_kernel_folder_that_is_a_link_in_the_image_is_the_kernels_or_nothing(
    ground: OciGround, root: Path, name: str
) -> None:
    """CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: masks put on a folder of the image's."""
    fake = root / "fake"
    (fake / "self").mkdir(parents=True)
    (fake / "keys").write_text("not masked")
    (fake / "firmware").mkdir()
    (root / name).symlink_to("fake")
    text = ""
    with contextlib.suppress(AgentError):  # refused, which is as good
        text = said(
            ground,
            "sh",
            "-c",
            f"grep -c ' /{name} ' /proc/mounts; cat /proc/keys; echo x > /proc/sys/kernel/core_pattern",
        )
    assert "not masked" not in text
    assert not (fake / "sys").exists()


@contextlib.contextmanager
def flipping(place: Path, outside: Path) -> Iterator[None]:
    """While the block lasts, `place` is by turns a folder and a link that leads out, as a hostile neighbour has it."""
    over = threading.Event()

    def flip() -> None:
        spare, link = place.with_name("spare"), place.with_name("link")
        link.symlink_to(outside)
        while not over.is_set():
            with contextlib.suppress(OSError):  # the runtime is at it too
                place.rename(spare)
                link.rename(place)
                place.rename(link)
                spare.rename(place)

    flipper = threading.Thread(target=flip)
    flipper.start()
    try:
        yield
    finally:
        over.set()
        flipper.join()


def test_a_shared_volume_that_is_exchanged_for_a_link_leads_no_mount_out(ground: OciGround, tmp_path: Path) -> None:
    """CVE-2021-30465, CVE-2024-45310: a mount's target below a volume, exchanged while the runtime makes it.

    runc before 1.1.14 may leave an empty folder behind (the second number), of which `doctor` warns.
    """
    outside, volume, inner = tmp_path / "outside", tmp_path / "volume", tmp_path / "inner"
    for folder in (outside, volume / "place", inner):
        folder.mkdir(parents=True)
    (inner / "mark").touch()
    mounts = [spec.Mount("/vol", source=str(volume)), spec.Mount("/vol/place/here", source=str(inner))]
    with flipping(volume / "place", outside):
        for number in range(_STARTS):
            with contextlib.suppress(AgentError):  # the runtime saw that it was exchanged
                said(ground, "true", id=f"race-{number}", mounts=mounts)
            ground.shim.delete(f"race-{number}")
    left = [path for path in outside.rglob("*") if not path.is_dir() or path.is_mount() or any(path.iterdir())]
    assert left == []
    assert not (outside / "here/mark").exists()


def test_a_console_that_is_a_link_in_the_image_writes_nothing_elsewhere(ground: OciGround, root: Path) -> None:
    """CVE-2025-52565: /dev/console and /dev/pts/N as links, with a terminal."""
    for path in ("dev/console", "dev/pts/0", "dev/ptmx", "dev/tty"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to("/proc/sys/kernel/core_pattern")
    text = said(ground, "sh", "-c", "echo x > /dev/console; ls -l /dev/console /dev/ptmx", terminal=True)
    assert "core_pattern" not in text


def test_masked_files_as_links_of_the_image_mask_nothing_else(ground: OciGround, root: Path) -> None:
    """CVE-2025-31133: /dev/null, with which files are masked, as a link to what should not be opened."""
    (root / "dev").mkdir()
    for name in ("null", "zero", "full"):
        (root / "dev" / name).symlink_to(_CORE_PATTERN)
    script = f"wc -c < /proc/keys; test -c /dev/null && echo device; echo x > {_CORE_PATTERN}"
    text = said(ground, "sh", "-c", script)
    assert text.splitlines()[:2] == ["0", "device"]
    assert "Read-only file system" in text


@pytest.mark.parametrize("path", ["/proc", "/proc/self/attr", "/proc/sys/kernel", "/sys/kernel", "/dev"])
def test_nothing_is_mounted_where_the_runtime_writes_for_the_task(ground: OciGround, tmp_path: Path, path: str) -> None:
    """CVE-2025-52881: the runtime's own writes to /proc, led elsewhere by a mount."""
    with pytest.raises(Invalid, match="nothing can be mounted at"):
        ground.task("true", mounts=[spec.Mount(path, source=str(tmp_path))])


def test_an_exec_gets_no_descriptor_and_no_folder_of_the_node(ground: OciGround) -> None:
    """CVE-2024-21626, CVE-2016-9962: what an exec inherits, and where it begins."""
    shim = running(ground)
    check = "ls /proc/self/fd | wc -l > /tmp/count; test $(cat /tmp/count) -le 4 && test $(pwd -P) = /"
    assert shim.exec("one", ExecSpec(["sh", "-c", check])) == 0
    for cwd in ("/proc/self/fd/7", "/proc/self/fd/8/../../.."):
        with contextlib.suppress(AgentError):
            assert shim.exec("one", ExecSpec(["sh", "-c", "test -e /.dockerenv-of-the-node"], cwd=cwd)) != 0
    assert not os.path.exists(ground.state / "bundles/one/rootfs/.dockerenv-of-the-node")


def test_the_tasks_control_group_cannot_be_written_from_inside(ground: OciGround) -> None:
    """CVE-2022-0492, CVE-2023-25809: a writable control group, by whose release_agent the node runs a program."""
    find = "find /sys/fs/cgroup -name release_agent -o -name cgroup.procs"
    tried = f"for f in $({find}); do echo 1 > $f && echo wrote; done"
    text = said(ground, "sh", "-c", f"({tried}) 2>/dev/null; mount")
    assert "wrote" not in text
    groups = [line for line in text.splitlines() if " type cgroup" in line]
    assert groups
    assert all("(ro," in line for line in groups)


SHOWN: Final = {
    "CVE-2019-5736": confinement.test_the_runtime_cannot_be_overwritten_through_its_own_exe,
    "CVE-2019-16884": test_a_kernel_folder_that_is_a_link_in_the_image_is_the_kernels_or_nothing,
    "CVE-2019-19921": test_a_kernel_folder_that_is_a_link_in_the_image_is_the_kernels_or_nothing,
    "CVE-2021-30465": test_a_shared_volume_that_is_exchanged_for_a_link_leads_no_mount_out,
    "CVE-2022-0492": test_the_tasks_control_group_cannot_be_written_from_inside,
    "CVE-2022-29162": confinement.test_nothing_is_inheritable_and_the_set_is_the_default_one,
    "CVE-2022-36109": confinement.test_exec_as_another_user_has_none_of_the_containers_groups,
    "CVE-2023-25809": test_the_tasks_control_group_cannot_be_written_from_inside,
    "CVE-2023-27561": test_a_kernel_folder_that_is_a_link_in_the_image_is_the_kernels_or_nothing,
    "CVE-2023-28642": test_a_kernel_folder_that_is_a_link_in_the_image_is_the_kernels_or_nothing,
    "CVE-2024-21626": confinement.test_a_task_gets_no_descriptor_but_its_three,
    "CVE-2024-45310": test_a_shared_volume_that_is_exchanged_for_a_link_leads_no_mount_out,
    "CVE-2025-31133": test_masked_files_as_links_of_the_image_mask_nothing_else,
    "CVE-2025-52565": test_a_console_that_is_a_link_in_the_image_writes_nothing_elsewhere,
    "CVE-2025-52881": test_nothing_is_mounted_where_the_runtime_writes_for_the_task,
}
"""Which test shows what: docs/runtime.md has the same numbers."""


def test_every_number_that_is_told_has_its_test() -> None:
    page = (Path(__file__).parents[2] / "docs/runtime.md").read_text()
    missing = [number for number in SHOWN if number not in page]
    assert missing == []
