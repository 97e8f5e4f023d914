"""`config`: what is in force and why, and all that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reconciler.cli.main import run
from reconciler.config import parse_config
from reconciler.model.config import Config

SECRET = "hunter2"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with one drop-in; its environment says nothing."""
    for name in ("http_proxy", "HTTP_PROXY", "OTEL_EXPORTER_OTLP_ENDPOINT", "REGISTRY_AUTH_FILE", "RECONCILER_STATE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "config.yaml").write_text(
        f"version: 2\nstate: {tmp_path}/s\ntransfer: {{keepFree: 20, proxy: {{https: 'http://u:{SECRET}@p:1'}}}}\n"
    )
    (tmp_path / "conf.d/a.yaml").write_text("version: 2\nnode: {labels: {site: lyon}}\n")
    monkeypatch.setenv("RECONCILER_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("RECONCILER_ROOT", str(tmp_path / "r"))
    return tmp_path


def items(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, tuple[object, str]]:
    """What `config show --origin` says of each key."""
    assert run([*options, "config", "show", "--origin", "-o", "json"]) == 0
    return {one["key"]: (one["value"], one["origin"]) for one in json.loads(capsys.readouterr().out)["items"]}


def test_each_value_has_its_origin(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = items(capsys)
    assert found["transfer.keepFree"] == (20, f"{config}/config.yaml:3")
    assert found["node.labels.site"] == ("lyon", f"{config}/conf.d/a.yaml:2")
    assert found["transfer.parallel"] == (4, "default")
    assert found["root"] == (f"{config}/r", "RECONCILER_ROOT")
    assert found["state"] == (f"{config}/s", f"{config}/config.yaml:2")
    assert items(capsys, "--state", "/run/x")["state"] == ("/run/x", "--state")


def test_the_environment_is_told_where_it_counts(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://u:{SECRET}@collector:4318")
    monkeypatch.setenv("HTTP_PROXY", "http://elsewhere:1")
    found = items(capsys)
    assert found["telemetry.endpoint"] == ("http://***@collector:4318", "environment: OTEL_EXPORTER_OTLP_ENDPOINT")
    assert found["transfer.proxy.http"] == (None, "default"), "a file that names a proxy speaks for all of them"


@pytest.mark.parametrize("options", [[], ["--origin"], ["-o", "json"], ["--origin", "-o", "yaml"]])
def test_no_password_is_shown(config: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    assert run(["config", "show", *options]) == 0
    out = capsys.readouterr().out
    assert SECRET not in out
    assert "http://***@p:1" in out


def test_what_is_shown_is_a_configuration(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show"]) == 0
    shown = parse_config(capsys.readouterr().out.encode(), "shown.yaml")
    assert (shown.node.labels, shown.transfer.keep_free) == ({"site": "lyon"}, 20)


def test_every_fault_is_told_and_the_code_is_1(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "validate"]) == 0
    assert capsys.readouterr().out == f"{config}/config.yaml: valid\n{config}/conf.d/a.yaml: valid\n"
    (config / "conf.d/a.yaml").write_text("version: 2\nnod: {}\ngc: {interval: often}\n")
    assert run(["config", "validate"]) == 1
    err = capsys.readouterr().err
    assert f"error: {config}/conf.d/a.yaml:2:1: nod: unknown field\n       did you mean node?\n" in err
    assert f"error: {config}/conf.d/a.yaml:3:16: gc.interval: is not a duration" in err
    assert run(["config", "validate", str(config / "none.yaml")]) == 1
    assert "none.yaml is not there" in capsys.readouterr().err


def test_the_default_is_a_configuration_with_every_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "default"]) == 0
    assert parse_config(capsys.readouterr().out.encode(), "default.yaml") == Config()


def test_the_schema_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["required"] == ["version"]
