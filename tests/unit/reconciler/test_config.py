"""The configuration: nothing given is a configuration; what is wrong is told with its place."""

from pathlib import Path

import pytest

from core.errors import NotFound
from reconciler.config import BadConfig, load_config, parse_config
from reconciler.model.config import Config


def test_no_file_and_an_empty_file_are_all_defaults(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("# nothing yet\n")
    assert load_config(None) == load_config(tmp_path / "config.yaml") == Config()


def test_what_is_written_is_what_is_read() -> None:
    text = b"version: 2\nroot: /srv/r\nnode: {name: till-7, labels: {site: lyon}}\ntransfer: {keepFree: 5}\n"
    config = parse_config(text, "config.yaml")
    assert (config.root, config.node.name, config.node.labels, config.transfer.keep_free) == (
        "/srv/r", "till-7", {"site": "lyon"}, 5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("root: /srv\n", "config.yaml:1:1: has no version; add version: 2"),
        ("version: 2\nroots: /srv\n", "config.yaml:2:1: roots: unknown field; did you mean root?"),
        ("version: 2\nroot: srv\n", "config.yaml:2:7: root: is not an absolute path"),
        ("version: 2\ntransfer:\n  keepFree: 95\n", "config.yaml:3:13: transfer.keepFree: is too large; write 90 or"),
        ("version: 3\n", "config.yaml:1:10: version: 3 is not known here; write 2"),
        ("version: 2\n---\nversion: 2\n", "config.yaml:3:1: a configuration is one document"),
        ("version: [\n", "config.yaml:2:1: "),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, says: str) -> None:
    with pytest.raises(BadConfig) as caught:
        parse_config(text.encode(), "config.yaml")
    assert str(caught.value).startswith(says), str(caught.value)


def test_all_faults_are_counted() -> None:
    with pytest.raises(BadConfig, match=r"\(and 1 more\)") as caught:
        parse_config(b"version: 2\nroot: srv\nstate: run\n", "config.yaml")
    assert len(caught.value.faults) == 2


def test_a_file_that_was_named_and_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"config\.yaml is not there"):
        load_config(tmp_path / "config.yaml")
