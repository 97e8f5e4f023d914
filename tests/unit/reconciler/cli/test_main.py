"""The command line itself: help that teaches, errors in one grammar, exit codes, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.cli.main import COMMANDS
from tests.unit.reconciler.cli.conftest import Cli

HEAVY = ("pydantic", "ruamel", "apscheduler", "urllib3", "rich", "opentelemetry", "git", "tenacity", "subprocess")


def test_the_list_of_commands_is_the_table(cli: Cli) -> None:
    code, out, _ = cli("--help")
    assert code == 0
    assert all(f"  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_has_an_example(cli: Cli, name: str) -> None:
    code, out, _ = cli(name, "--help")
    assert code == 0
    assert "Example" in out
    assert f"  reconciler {name}" in out


def test_a_wrong_word_is_a_usage_error_that_says_what_was_meant(cli: Cli) -> None:
    code, out, err = cli("aply")
    assert (code, out) == (2, "")
    assert err == "error: usage: There is no command 'aply'. Did you mean apply?\n       See: reconciler --help\n"


def test_a_wrong_option_names_the_help_of_its_command(cli: Cli) -> None:
    code, _, err = cli("get", "all", "--colour")
    assert code == 2
    assert err.endswith("       See: reconciler get --help\n")


def test_a_wrong_duration_says_how_to_write_one(cli: Cli) -> None:
    code, _, err = cli("wait", "container/web", "--timeout", "soon")
    assert code == 2
    assert "such as 90s or 5m" in err


def test_a_store_that_is_none_is_an_error_with_its_category(cli: Cli) -> None:
    cli.root.mkdir(mode=0o700)
    (cli.root / "store.db").write_bytes(b"no database" * 1000)
    code, _, err = cli("get", "all")
    assert code == 1
    assert err.startswith("error: corrupt: ")


def test_a_folder_that_cannot_be_read_is_an_error_too(cli: Cli) -> None:
    cli.root.write_text("a file")
    code, _, err = cli("get", "all", "-o", "json")
    assert (code, err) == (0, "") or err.startswith("error: ")


def process(tmp_path: Path, *words: str, code: str = "from reconciler.cli.main import main; main()") -> list[str]:
    return [sys.executable, "-c", code, "--root", str(tmp_path / "r"), "--state", str(tmp_path / "s"), *words]


def test_reading_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from reconciler.cli.main import run; code = run(sys.argv[1:]);"
        f"print([name for name in {HEAVY!r} if name in sys.modules]); sys.exit(code)"
    )
    for words in (["get", "all"], ["get", "all", "-o", "json"], ["status"], ["events"]):
        done = subprocess.run(process(tmp_path, *words, code=code), capture_output=True, text=True)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]")


def test_what_nobody_foresaw_is_one_line_and_a_report(tmp_path: Path) -> None:
    code = (
        "import sys; from reconciler.cli import main, context\n"
        "def wrong(self): raise RuntimeError('bad\\nluck')\n"
        "context.Node.store = wrong; main.main()"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(process(tmp_path, "get", "all", code=code), capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout) == (70, "")
    assert done.stderr.startswith("error: failed: RuntimeError: bad luck\n")
    (report,) = tmp_path.glob("reconciler-crash-*.txt")
    assert str(report) in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in report.read_text()


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", '"$@" | true', "sh", *process(tmp_path, "schema", "container")],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupt_is_130(tmp_path: Path) -> None:
    code = (
        "import sys; from reconciler.cli import main, context\n"
        "def wrong(self): raise KeyboardInterrupt\n"
        "context.Node.store = wrong; main.main()"
    )
    done = subprocess.run(process(tmp_path, "get", "all", code=code), capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (130, "interrupted")
