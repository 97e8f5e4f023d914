"""`config migrate`: where things go, what is kept, what is refused, its exit codes; containerd itself as a judge."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from reconciler.config import load_config
from tests.unit.reconciler.cli.conftest import Cli, Done

CRI = 'plugins."io.containerd.grpc.v1.cri"'
LOGIN = f'version = 2\n[{CRI}.registry.configs."r.example".auth]\nusername = "joe"\npassword = "hunter2"\n'
MIRROR = f'[{CRI}.registry.mirrors.a]\nendpoint = ["https://m"]\n'
GOLDEN = Path(__file__).parents[3] / "golden/config"
needs_containerd = pytest.mark.skipif(shutil.which("containerd") is None, reason="needs containerd")


def theirs(cli: Cli, file: Path, to: str = "4", *more: str | Path) -> Done:
    return cli("config", "migrate", "--from", "containerd", file, "--to", to, *more)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of containerd's, to be written."""
    return tmp_path / "etc/config.toml"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def beside(path: Path) -> list[str]:
    """All files below the folder of a path."""
    return sorted(str(one.relative_to(path.parent)) for one in path.parent.rglob("*") if one.is_file())


def test_without_options_the_document_is_printed_and_the_report_is_told(cli: Cli, file: Path) -> None:
    write(file, "# mine\nversion = 2\nroot = '/r'\n")
    done = cli("config", "migrate", "--from", "containerd", file)
    assert (done.code, done.out) == (0, "# mine\nversion = 4\nroot = '/r'\n")
    assert "2 keys: 1 moved, 1 translated, 0 default, 0 inert, 0 dropped" in done.err
    assert beside(file) == ["config.toml"]


def test_a_report_in_json_lists_each_key_with_its_place(cli: Cli, file: Path) -> None:
    write(file, "version = 2\nplugin_dir = '/p'\n")
    again = theirs(cli, write(file.with_name("login.toml"), LOGIN), "3", "--report", "json", "--strict")
    assert [entry["outcome"] for entry in json.loads(again.err)["entries"]] == ["translated", "dropped", "dropped"]
    first, second = json.loads(theirs(cli, file, "3", "--report", "json").err)["entries"]
    assert first == {
        "key": "version",
        "file": str(file),
        "line": 1,
        "outcome": "translated",
        "to": "version",
        "why": "2 → 3",
    }
    assert (second["key"], second["line"], second["outcome"], second["to"]) == ("plugin_dir", 2, "dropped", "")


def test_write_replaces_the_file_keeps_the_old_one_and_does_nothing_twice(cli: Cli, file: Path) -> None:
    write(file, "version = 2\nroot = '/r'\n").chmod(0o640)
    assert theirs(cli, file, "3", "--write").code == 0
    assert file.read_text() == "version = 3\nroot = '/r'\n"
    assert (file.parent / "config.toml.bak").read_text() == "version = 2\nroot = '/r'\n"
    assert {stat.S_IMODE(one.stat().st_mode) for one in file.parent.iterdir()} == {0o640}
    again = theirs(cli, file, "3", "--write")
    assert (again.code, "nothing to do" in again.err, len(beside(file))) == (0, True, 2)
    assert theirs(cli, file, "4", "--write").code == 0
    assert beside(file) == ["config.toml", "config.toml.bak", "config.toml.bak.2"]


def test_write_migrates_each_import_in_place_and_they_go_on_being_imported(cli: Cli, file: Path) -> None:
    write(file, 'version = 2\nimports = ["conf.d/*.toml"]\n')
    drop_in = write(file.parent / "conf.d/nv.toml", 'version = 3\noom_score = 3\n[grpc]\naddress = "/g"\n')
    assert theirs(cli, file, "4", "--write").code == 0
    assert tomllib.loads(file.read_text()) == {"version": 4, "imports": ["conf.d/*.toml"]}
    assert tomllib.loads(drop_in.read_text())["version"] == 4
    assert drop_in.with_name("nv.toml.bak").exists()


@pytest.mark.parametrize("drop_in", ["version = 9\n", "version = [", "version = 2\nroot = 3\n"])
def test_write_over_imports_writes_nothing_when_one_of_them_is_bad(cli: Cli, file: Path, drop_in: str) -> None:
    write(file, 'version = 2\nimports = ["other.toml"]\n')
    write(file.parent / "other.toml", drop_in)
    done = theirs(cli, file, "3", "--write")
    assert (done.code, "other.toml:" in done.err) == (1, True)
    assert beside(file) == ["config.toml", "other.toml"]
    assert file.read_text().startswith("version = 2")


def test_write_puts_all_files_back_when_one_cannot_be_written(cli: Cli, file: Path) -> None:
    text = "version = 2\n" + MIRROR
    write(file, text)
    write(file.parent / "certs.d", "a file, where a folder is due")
    done = theirs(cli, file, "3", "--write")
    assert (done.code, file.read_text()) == (1, text)


def test_write_follows_a_link_and_leaves_it(cli: Cli, file: Path, tmp_path: Path) -> None:
    real = write(tmp_path / "real/c.toml", "version = 2\n")
    file.parent.mkdir()
    file.symlink_to(real)
    assert theirs(cli, file, "3", "--write").code == 0
    assert (file.is_symlink(), real.read_text()) == (True, "version = 3\n")


def test_out_holds_the_document_hosts_secrets_and_the_report(cli: Cli, file: Path, tmp_path: Path) -> None:
    write(file, LOGIN + MIRROR)
    out = tmp_path / "out"
    assert theirs(cli, file, "3", "--out", out).code == 0
    assert beside(out / "x") == [
        "certs.d/a/hosts.toml",
        "config.toml",
        "report.json",
        "secrets/registry-r.example.yaml",
    ]
    assert stat.S_IMODE((out / "secrets/registry-r.example.yaml").stat().st_mode) == 0o600
    registry = tomllib.loads((out / "config.toml").read_text())["plugins"]["io.containerd.cri.v1.images"]["registry"]
    assert registry == {"config_path": str(out / "certs.d")}
    assert len(json.loads((out / "report.json").read_text())["entries"]) == 4


@pytest.mark.parametrize("to", ["2", "3", "4", "reconciler"])
def test_a_password_is_never_printed(cli: Cli, file: Path, to: str) -> None:
    write(file, LOGIN)
    done = theirs(cli, file, to)
    assert (done.code, "hunter2" in done.out + done.err) == (0, False)


@pytest.mark.parametrize(("to", "code"), [("3", 1), ("reconciler", 0)])
def test_strict_is_for_what_is_dropped(cli: Cli, file: Path, to: str, code: int) -> None:
    write(file, LOGIN)
    assert theirs(cli, file, to, "--strict").code == code


def test_strict_writes_nothing_in_place(cli: Cli, file: Path) -> None:
    write(file, LOGIN)
    assert theirs(cli, file, "3", "--strict", "--write").code == 1
    assert beside(file) == ["config.toml"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is not there"),
        ("a = [", "config.toml:1:"),
        ("version = 7\n", "from the future"),
        ('imports = ["x.toml"]\n', "x.toml, which is not there"),
        ('imports = ["config.toml"]\n', "imports this file"),
    ],
)
def test_bad_input_is_an_error_and_nothing_is_printed_or_written(
    cli: Cli, file: Path, tmp_path: Path, text: str | None, said: str
) -> None:
    if text is not None:
        write(file, text)
    for more in ((), ("--write",), ("--out", tmp_path / "out")):
        done = theirs(cli, file, "3", *more)
        assert (done.code, done.out, said in done.err) == (1, "", True)
    assert not (tmp_path / "out").exists()


def test_a_typing_error_in_the_path_is_an_error_and_no_default_configuration(cli: Cli, tmp_path: Path) -> None:
    done = theirs(cli, tmp_path / "typo.toml", "4")
    assert (done.code, done.out) == (1, "")
    assert "typo.toml is not there" in done.err


@pytest.mark.parametrize(
    "words",
    [("--write", "--out", "x"), ("--from", "containerd", "--to", "reconciler", "--write"), ("--from", "podman")],
)
def test_what_makes_no_sense_together_is_a_usage_error(cli: Cli, file: Path, words: tuple[str, ...]) -> None:
    assert cli("config", "migrate", write(file, ""), *words).code == 2


@pytest.mark.parametrize(("source", "to"), [("containerd", "5"), ("containerd", "1"), ("reconciler", "3")])
def test_a_target_that_does_not_exist_is_an_error(cli: Cli, file: Path, source: str, to: str) -> None:
    assert cli("config", "migrate", "--from", source, write(file, ""), "--to", to).code == 1


def test_containerds_configuration_without_from_is_told_apart(cli: Cli, file: Path) -> None:
    done = cli("config", "migrate", write(file, LOGIN))
    assert (done.code, "--from containerd" in done.err) == (1, True)


def test_our_version_1_is_written_as_version_2_in_place(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path / "etc/config.yaml", "# n\nplugins:\n  cri:\n    max_concurrent_downloads: 8 # many\n")
    assert cli("config", "migrate", path, "--to", "2", "--write").code == 0
    assert path.read_text() == "# n\nversion: 2\ntransfer:\n  parallel: 8 # many\n"
    assert load_config(path).transfer.parallel == 8
    assert cli("config", "migrate", path).out == path.read_text()


def test_our_version_1_in_toml_stays_toml_in_place_and_is_yaml_elsewhere(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path / "etc/config.toml", "version = 1\n[plugins.cri]\nmax_concurrent_downloads = 8 # many\n")
    assert cli("config", "migrate", path, "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out/config.yaml").read_text() == "version: 2\ntransfer:\n  parallel: 8 # many\n"
    assert cli("config", "migrate", path, "--write").code == 0
    assert path.read_text() == "version = 2\n[transfer]\nparallel = 8 # many\n"
    assert load_config(path).transfer.parallel == 8


def test_our_keys_without_a_version_are_an_error_that_says_what_to_add(cli: Cli, tmp_path: Path) -> None:
    done = cli("config", "migrate", write(tmp_path / "etc/config.yaml", "transfer: {parallel: 8}\n"))
    assert (done.code, "Add version: 2" in done.err) == (1, True)


@pytest.mark.parametrize("case", sorted(path.stem for path in GOLDEN.glob("*.toml")))
def test_what_ours_is_of_what_people_have_can_be_loaded(cli: Cli, tmp_path: Path, case: str) -> None:
    assert theirs(cli, GOLDEN / f"{case}.toml", "reconciler", "--out", tmp_path / "out").code == 0
    load_config(tmp_path / "out/config.yaml")


# ---------------------------------------------------------------------------------------------------- containerd's word


def containerd(*words: str | Path) -> dict[str, Any]:
    done = subprocess.run(["containerd", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return tomllib.loads(done.stdout)


@needs_containerd
def test_containerds_own_default_is_nothing_but_a_version_with_us(cli: Cli, file: Path) -> None:
    default = subprocess.run(["containerd", "config", "default"], capture_output=True, text=True, check=True).stdout
    write(file, default)
    assert theirs(cli, file, "2").out == default
    done = theirs(cli, file, "reconciler", "--strict")
    assert (done.code, done.out) == (0, "version: 2\n")


@needs_containerd
def test_containerd_reads_version_2_of_a_document_as_it_read_version_1(cli: Cli, file: Path, tmp_path: Path) -> None:
    first = (GOLDEN / "first-layout.toml").read_text()
    write(file, first.replace('"/usr/lib/containerd"', '""'))
    assert theirs(cli, file, "2", "--out", tmp_path / "out").code == 0
    before, after = (containerd("-c", path, "config", "dump") for path in (file, tmp_path / "out/config.toml"))
    cri = "io.containerd.grpc.v1.cri"
    auths = before["plugins"].get(cri, before["plugins"].get("cri"))["registry"].pop("auths", {})
    after["plugins"][cri]["registry"].pop("auths", {})
    assert auths
    assert after["disabled_plugins"] == ["io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.restart"]
    own = ("version", "imports", "disabled_plugins")
    assert [{key: value for key, value in one.items() if key not in own} for one in (before, after)] == [
        {key: value for key, value in after.items() if key not in own}
    ] * 2


@needs_containerd
def test_containerd_reads_debians_own_file_through_version_2(cli: Cli, file: Path) -> None:
    write(file, (GOLDEN / "debian.toml").read_text())
    assert theirs(cli, file, "2", "--write").code == 0
    dump = containerd("-c", file, "config", "dump")
    assert dump["plugins"]["io.containerd.grpc.v1.cri"]["cni"]["bin_dir"] == "/usr/lib/cni"
