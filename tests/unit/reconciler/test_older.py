"""Files of version 1: brought to version 2 as they are read, with the places of the file that a person has."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.config import BadConfig, load, staged

V1 = """\
version = 1
[plugins.cri]
  max_concurrent_downloads = 7
[plugins.cri.registry.mirrors."docker.io"]
  endpoint = ["http://mirror:5000"]
"""
V1_YAML = """\
plugins:
  cri:
    max_concurrent_downloads: 7
    registry: {mirrors: {docker.io: {endpoint: ["http://mirror:5000"]}}}
"""


@pytest.mark.parametrize(
    ("name", "text", "line"), [("config.toml", V1, 3), ("config.yaml", V1_YAML, 3), ("node", V1_YAML, 3)]
)
def test_each_value_keeps_its_line_and_each_key_is_told(tmp_path: Path, name: str, text: str, line: int) -> None:
    file = tmp_path / name
    file.write_text(text)
    loaded = load(file)
    assert loaded.config.transfer.parallel == 7
    assert loaded.origin(("transfer", "parallel")) == f"{file}:{line}"
    told = f"{file}:{line}: plugins.cri.max_concurrent_downloads is moved to transfer.parallel"
    assert any(step.startswith(told) for step in loaded.steps)
    assert list(loaded.beside) == ["certs.d/docker.io/hosts.toml"]
    assert file.read_text() == text


def test_drop_ins_of_version_2_are_merged_into_a_file_of_version_1(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "config.yaml").write_text(V1_YAML)
    (tmp_path / "conf.d/a.yaml").write_text("version: 2\ntransfer: {parallel: 3}\n")
    assert load(tmp_path / "config.yaml").config.transfer.parallel == 3


def test_what_lies_beside_is_staged_once_and_read_first(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(V1_YAML)
    loaded = load(tmp_path / "config.yaml")
    first, again = staged(loaded, tmp_path / "state"), staged(loaded, tmp_path / "state")
    assert first == again
    hosts = [Path(one) for one in first.config.transfer.hosts]
    assert 'host."http://mirror:5000"' in (hosts[0] / "docker.io/hosts.toml").read_text()
    assert hosts[1:] == [Path(one) for one in loaded.config.transfer.hosts]
    (folder,) = (tmp_path / "state").iterdir()
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0
    assert hosts[0].parent == folder


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("c.toml", "version = 1\na = [\n", "c.toml:3:1: is not TOML"),
        ("c.toml", "version = 9\n", "c.toml:1:1: version "),
        ("c.toml", "version = 1\na = " + "[" * 100_000, "c.toml:1:1: is nested too deeply"),
        ("c.toml", "# " + "x" * (1 << 20), "c.toml: is larger than 1 MiB"),
        ("c.toml", "[gc]\nkeepRevisions = 3\n", "c.toml:1:1: gc is a key of reconciler's, but there is no version"),
        ("c.toml", "version = 2\n[gc]\nkeepRevisions = 0\n", "c.toml:3:1: gc.keepRevisions: is too small"),
        ("c.yaml", "version: 1\nplugins: {cri: {containerd: {snapshotter: 7}}}\n", "c.yaml:2:30: plugins.cri."),
        (
            "c.yaml",
            "version: 1\ngc: {interval: 5m}\n",
            "c.yaml:2:1: gc is a key of version 2, in",
        ),
        ("c.yaml", "version: 1\nplugins: &x [*x]\n", "c.yaml:2:10: "),
    ],
)
def test_what_cannot_be_brought_is_told_with_its_place(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadConfig) as caught:
        load(tmp_path / name)
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(says), str(caught.value)[:300]
