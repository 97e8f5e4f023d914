"""A store of a version that is not out yet: every command says so, and changes nothing."""

import hashlib
import sqlite3
from pathlib import Path
from typing import Final

import pytest

from reconciler.cli.main import COMMANDS
from reconciler.store.sqlite_schema import FORMAT, STEPS
from tests.conftest import Node

pytestmark = pytest.mark.root

NEWER: Final = max(STEPS) + 1
VOLUME: Final = "{apiVersion: reconciler/v1, kind: Volume, metadata: {name: a}, spec: {}}"
WORDS: Final = {
    "apply": ("-f", "-"),
    "diff": ("-f", "-"),
    "get": ("all",),
    "describe": ("volume/a",),
    "delete": ("volume/a",),
    "logs": ("a",),
    "exec": ("a", "--", "true"),
    "events": (),
    "status": (),
    "wait": ("volume/a",),
    "agent": (),
    "agent uninstall": ("--yes",),
}
NO_STORE: Final = {"doctor", "schema", "version"}
"""Commands that need none."""


@pytest.fixture
def newer(node: Node) -> Node:
    assert node.cli("apply", "-f", "-", stdin=VOLUME).returncode == 0
    with sqlite3.connect(node.root / "store.db") as connection:
        connection.execute(f"PRAGMA user_version = {NEWER}")
        connection.execute("UPDATE meta SET value = ? WHERE name = ?", (str(NEWER), FORMAT))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return node


def content(root: Path) -> dict[str, str]:
    """Every file below with its digest, SQLite's own scratch files aside."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix not in (".db-wal", ".db-shm"))
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_command_that_needs_the_store_refuses_a_newer_one_and_changes_nothing(newer: Node) -> None:
    before = content(newer.root)
    for command, words in WORDS.items():
        done = newer.cli(*command.split(), *words, stdin=VOLUME)
        assert done.returncode == (2 if command == "diff" else 1), (command, done)
        told = f"error: not supported: the store is of format {NEWER}, this version knows up to {max(STEPS)}\n"
        assert told in done.stderr, (command, done.stderr)
        assert "Install the version that wrote it, or a newer one; nothing was changed.\n" in done.stderr, command
        assert done.stdout == "", command
        assert content(newer.root) == before, command


def test_the_table_above_has_the_first_commands() -> None:
    assert {word.split()[0] for word in WORDS} | NO_STORE <= set(COMMANDS)
