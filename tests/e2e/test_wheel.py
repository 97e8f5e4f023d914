"""What is shipped."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Final

import pytest

import reconciler
from tests import architecture

TOP = Path(__file__).resolve().parents[2]
OBJECTS: Final = """
apiVersion: reconciler/v1
kind: Volume
metadata: {name: v}
spec: {retain: false}
---
apiVersion: reconciler/v1
kind: Secret
metadata: {name: s}
spec: {stringData: {k: v}}
"""


def test_the_wheel_ships_the_three_packages_with_their_data_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path]
    subprocess.run(command, cwd=TOP, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        entry_points = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert b"reconciler = reconciler.cli.main:main" in archive.read(entry_points)
    sources = {
        str(path.relative_to(TOP))
        for package in ("core", "reconciler", "migrations")
        for path in (TOP / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == sources
    assert {"core/py.typed", "reconciler/py.typed", "migrations/py.typed"} <= names


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_an_installed_wheel_works_with_nothing_of_the_checkout(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path]
    subprocess.run(command, cwd=TOP, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    home = tmp_path / "home"
    venv.create(home, symlinks=True)
    install = [sys.executable, "-m", "pip", "--python", home / "bin/python", "install", "--no-deps", "--no-index"]
    subprocess.run([*install, "--no-compile", "--quiet", wheel], check=True, capture_output=True, cwd=tmp_path)
    (packages,) = home.glob("lib/python*/site-packages")
    libraries = sysconfig.get_paths()["purelib"]  # what it depends on, and not the checkout: its .pth is not read there
    (packages / "libraries.pth").write_text(f"{libraries}\n")

    def run(*words: str, stdin: str = "") -> str:
        place = ["--root", tmp_path / "root", "--state", tmp_path / "state"]
        done = subprocess.run(
            [home / "bin/reconciler", *place, *words], input=stdin, capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    asked = [home / "bin/python", "-c", "import core, reconciler; print(core.__file__, reconciler.__file__)"]
    where = subprocess.run(asked, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.split()
    assert all(path.startswith(str(home)) for path in where), where
    assert run("version").startswith(f"reconciler {reconciler.__version__} (")
    run("schema", "container")
    done = run("apply", "-f", "-", stdin=OBJECTS)
    assert "Converged: 2 objects, 2 created, in " in done
    assert {"secret/s", "volume/v"} <= set(run("get", "all", "-o", "name").split())
    assert "nothing to do" in run("apply", "-f", "-", stdin=OBJECTS)
    assert f'ExecStart="{home}/bin/reconciler" ' in run("agent", "install", "--print")
    run("delete", "secret/s", "volume/v")


def test_the_wheel_depends_on_what_it_imports_and_on_nothing_else() -> None:
    declared = set(tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["dependencies"])
    names = {re.split(r"[^A-Za-z0-9.-]", one)[0].lower() for one in declared}
    homes = {"GitPython": "git", "grpcio": "grpc", "opentelemetry-sdk": "opentelemetry", "ruamel.yaml": "ruamel"}
    modules = {home.lower(): module for home, module in homes.items()}
    pinned = {name for name, rooms in architecture.PINS.items() if rooms}
    assert {modules.get(name, name) for name in names - {"ruamel.yaml.clib"}} <= pinned
