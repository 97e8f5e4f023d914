"""`config migrate --write` is killed at each rename: every file is whole, and the next run brings all to the end."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

pytestmark = [pytest.mark.root, pytest.mark.skipif(shutil.which("strace") is None, reason="not installed: strace")]

MAIN: Final = """\
version = 2
imports = ["conf.d/*.toml"]
[plugins."io.containerd.grpc.v1.cri".registry.mirrors.a]
endpoint = ["https://m"]
[plugins."io.containerd.grpc.v1.cri".registry.configs."r.example".auth]
username = "me"
password = "hunter2"
"""
DROP_IN: Final = 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\nsandbox_image = "p:1"\n'
MOST: Final = 40


def laid_out(folder: Path) -> Path:
    """The files before; gives the main one."""
    (folder / "conf.d").mkdir(parents=True)
    (folder / "conf.d" / "a.toml").write_text(DROP_IN)
    (folder / "config.toml").write_text(MAIN)
    return folder / "config.toml"


def migrate(file: Path, traced: Sequence[str] = ()) -> int:
    """Migrate in place; the exit code, negative or above 128 when it was killed."""
    words = ["config", "migrate", "--from", "containerd", str(file), "--to", "3", "--write"]
    return subprocess.run(
        [*traced, sys.executable, "-m", "reconciler.cli.main", *words], capture_output=True, timeout=60
    ).returncode


def texts(folder: Path) -> dict[str, str]:
    """All files but the backups, by name."""
    found = (path for path in folder.rglob("*") if path.is_file() and ".bak" not in path.name)
    return {str(path.relative_to(folder)): path.read_text() for path in found}


def test_a_kill_at_any_rename_leaves_whole_files_and_the_next_run_ends_it(tmp_path: Path) -> None:
    assert migrate(laid_out(tmp_path / "undisturbed")) == 0
    wanted = {name: text.replace("undisturbed", "X") for name, text in texts(tmp_path / "undisturbed").items()}
    killed = 0
    for number in range(1, MOST):
        folder = tmp_path / f"killed-{number}"
        file = laid_out(folder)
        inject = f"inject=rename,renameat,renameat2:signal=KILL:when={number}"
        code = migrate(file, ("strace", "-f", "-o", str(tmp_path / "log"), "-e", "trace=/rename", "-e", inject))
        if code == 0:
            break
        killed += 1
        for name in ("config.toml", "conf.d/a.toml"):
            assert tomllib.loads((folder / name).read_text())["version"] in (2, 3)
        assert migrate(file) == 0
        after = {name: text.replace(folder.name, "X") for name, text in texts(folder).items()}
        assert {name: after[name] for name in wanted} == wanted
        assert (folder / "config.toml.bak").read_text() == MAIN
    assert killed >= 4
