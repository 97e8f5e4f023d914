"""What a guest does without, so that an emulated machine starts sooner, and what it has in its place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.runtime.vm.frames import Frame, Kind
from core.runtime.vm.guest.tasks import remove

DEAR = ("typing", "shutil", "contextlib", "dataclasses", "socket", "subprocess", "traceback", "logging")
TOP = Path(__file__).parents[5]


def test_the_agent_imports_nothing_that_is_dear_under_emulation() -> None:
    """As it starts in the guest: isolated, with our stand-in for typing."""
    look = (
        f"import sys; sys.path.insert(0, {str(TOP)!r})\n"
        "import core.runtime.vm.guest.names as names\n"
        "own = sys.modules.pop('typing', None)\n"
        "sys.modules['typing'] = names\n"
        "import core.runtime.vm.guest.agent\n"
        f"print([name for name in {DEAR} if sys.modules.get(name) not in (None, names)])\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-E", "-c", look], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_a_folder_is_removed_with_all_that_is_in_it_and_no_link_is_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (tmp_path / "gone" / "below").mkdir(parents=True)
    (tmp_path / "gone" / "below" / "file").touch()
    (tmp_path / "gone" / "link").symlink_to(kept)
    (tmp_path / "gone" / "dangling").symlink_to("nowhere")
    remove(str(tmp_path / "gone"))
    remove(str(tmp_path / "gone"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]
    assert (kept / "file").exists()


@pytest.mark.root
def test_nothing_is_removed_that_is_mounted_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "task" / "rootfs"
    folder.mkdir(parents=True)
    (tmp_path / "task" / "log").touch()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)
    try:
        (folder / "precious").touch()
        remove(str(tmp_path / "task"))
        assert (folder / "precious").exists()
        assert not (tmp_path / "task" / "log").exists()
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_frames_are_values() -> None:
    frame = Frame(Kind.CALL, 1, b"{}")
    assert {frame} == {Frame(Kind.CALL, 1, b"{}")}
    assert frame != Frame(Kind.CALL, 2, b"{}")
    assert repr(frame) == "Frame(<Kind.CALL: 1>, 1, b'{}')"
