"""What is told of the configuration is made from the model: the commented file, the page, the schema, plain values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from reconciler.config import parse_config
from reconciler.model.config import Config
from reconciler.model.settings import (
    after_restart,
    config_schema,
    default_text,
    duration,
    flat,
    plain,
    reference,
    settings,
    without_passwords,
)
from reconciler.sources.manifests import dump

TOP: Final = Path(__file__).resolve().parents[4]
PAGE: Final = TOP / "docs" / "configuration.md"
ANEW: Final = "run scripts/configuration-page"
FULL: Final = b"""\
version: 2
root: /srv/r
node: {name: till-7, labels: {site: lyon}}
sources: {git: {sshKey: /k, timeout: 1m30s, allowFile: true}, pruneLimit: 10, waitFor: 500ms}
transfer: {hosts: [/a, /b], proxy: {http: "http://p:1", noProxy: [x]}, plainHttp: ["r:5000"], parallel: 2, keepFree: 0}
runtimes: {fast: {path: /bin/crun, options: {debug: "1"}}}
defaultRuntime: fast
gc: {interval: 2h, keepRevisions: 5}
"""


def test_every_key_has_a_meaning() -> None:
    assert [one.key for one in settings() if not one.meaning] == []
    assert len(list(settings())) > 30


def test_the_default_file_is_valid_and_is_all_defaults() -> None:
    assert parse_config(default_text().encode(), "default.yaml") == Config()


def test_the_default_file_names_every_key() -> None:
    text = default_text()
    missing = [one.key for one in settings() if not re.search(rf"^[# ]*{re.escape(one.path[-1])}:", text, re.MULTILINE)]
    assert missing == []


@pytest.mark.parametrize("data", [FULL, b"version: 2\n", default_text().encode()], ids=["full", "bare", "default"])
def test_plain_values_are_read_back_as_the_same_configuration(data: bytes) -> None:
    config = parse_config(data, "config.yaml")
    assert parse_config(dump([plain(config)]).encode(), "again.yaml") == config


def test_the_page_tells_every_key_as_the_model_does() -> None:
    assert PAGE.read_text().endswith(f"reconciler/model/config.py. -->\n\n{reference()}"), ANEW


def test_every_example_of_the_page_is_a_configuration() -> None:
    examples = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(examples) > 1
    for example in examples:
        parse_config(example.encode(), str(PAGE))


def test_the_schema_lets_every_key_be_null_but_the_version() -> None:
    schema = config_schema()
    assert schema["required"] == ["version"]
    assert schema["properties"]["version"] == {**schema["properties"]["version"], "const": 2}
    for section in (schema, *schema["$defs"].values()):
        assert section["additionalProperties"] is False
        others = [one for name, one in section["properties"].items() if name != "version"]
        assert [one for one in others if {"type": "null"} not in one["anyOf"]] == []


def test_the_schema_gives_defaults_as_they_are_written() -> None:
    gc = config_schema()["$defs"]["GcConfig"]["properties"]
    assert (gc["interval"]["default"], gc["keepRevisions"]["default"]) == ("1h", 3)
    assert gc["interval"]["description"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(3600.0, "1h"), (5400.0, "1h30m"), (90.0, "1m30s"), (0.5, "500ms"), (0.0, "0s"), (60.0, "1m")]
)
def test_a_duration_is_told_as_it_is_written(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_logins_in_urls_are_masked_and_paths_are_not() -> None:
    before = {"a": "http://u:p@h:1", "b": ["u:p@h:1", "/srv/a@b:c", "h:5000"], "c": 1, "d": None}
    after = {"a": "http://***@h:1", "b": ["***@h:1", "/srv/a@b:c", "h:5000"], "c": 1, "d": None}
    assert without_passwords(before) == after


def test_only_what_is_marked_waits_for_a_restart() -> None:
    waiting = {".".join(path) for path, _ in flat(plain(Config())) if after_restart(path)}
    assert waiting == {
        "root", "state", "node.name", "telemetry.endpoint", "telemetry.interval",
    }  # fmt: skip
    assert not after_restart(("runtimes", "fast", "path"))
