"""Profiles of AppArmor, loaded for the time of a test."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.runtime.node import loaded_profiles, read_node

PROFILE = """
profile {name} flags=(attach_disconnected,mediate_deleted) {{
  file,
  capability,
  network,
  signal,
  ptrace,
  umount,
  deny /etc/hidden r,
  deny /data/** w,
}}
"""
"""Everything that a task does, but for reading one file and writing into one folder."""


def needed() -> None:
    """Skip where a profile would confine nothing."""
    if not read_node().apparmor:
        pytest.skip("this node has no AppArmor; tests/kernel runs it on one that has")
    if shutil.which("apparmor_parser") is None:
        pytest.skip("apparmor is not installed")


@contextmanager
def loaded(folder: Path) -> Iterator[str]:
    """The name of a profile that is loaded, and is taken away at the end; its text lies in `folder`."""
    name = f"reconciler-test-{secrets.token_hex(4)}"
    text = folder / name
    text.write_text(PROFILE.format(name=name))
    _parser("--replace", text)
    try:
        assert name in (loaded_profiles() or ())
        yield name
    finally:
        _parser("--remove", text)


def _parser(what: str, text: Path) -> None:
    done = subprocess.run(
        ["apparmor_parser", what, "--skip-cache", text], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
