"""Logins as docker keeps them, and its helper programs."""

import base64
import json
import os
from pathlib import Path

import pytest

from core.errors import Failed, Invalid, MissingTool, NotFound
from core.process import CLEAN_ENV, Launcher
from core.transfer import logins
from core.transfer.auth import Credentials
from core.transfer.logins import parse_logins, read_logins

ME = Credentials("me", "se:cret")
AUTH = base64.b64encode(b"me:se:cret").decode()


def parsed(**document: object) -> logins.Logins:
    return parse_logins(json.dumps(document).encode(), "config.json")


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("reg.example:5000", "reg.example:5000"),
        ("https://REG.example/v2/", "reg.example"),
        ("http://reg.example/", "reg.example"),
    ],
)
def test_a_login_is_found_by_its_host_however_it_is_written(key: str, host: str) -> None:
    assert parsed(auths={key: {"auth": AUTH}}).find(host, "app", None) == ME


def test_a_login_is_for_its_own_host_only() -> None:
    kept = parsed(auths={"reg.example": {"auth": AUTH}})
    assert kept.find("reg.example:5000", "app", None) is None
    assert kept.find("evil.reg.example", "app", None) is None
    assert kept.find("example", "app", None) is None


def test_a_login_for_some_repositories_goes_before_that_of_the_host() -> None:
    team = {"username": "team", "password": "x"}
    kept = parsed(auths={"reg.example": {"auth": AUTH}, "reg.example/team": team})
    assert kept.find("reg.example", "team/app", None) == Credentials("team", "x")
    assert kept.find("reg.example", "teams/app", None) == ME


def test_an_identity_token_and_an_empty_entry() -> None:
    kept = parsed(auths={"a.example": {"auth": AUTH, "identitytoken": "t"}, "b.example": {}})
    assert kept.find("a.example", "", None) == Credentials("", "", "t")
    assert kept.find("b.example", "", None) is None
    assert "se:cret" not in repr(kept)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"auths": []}',
        b'{"auths": {"a": {"auth": "!!"}}}',
        b'{"auths": {"a": {"auth": "bm9jb2xvbg=="}}}',
        b'{"auths": {"a": {"username": 5}}}',
        b'{"credsStore": "../../bin/sh"}',
        b'{"credHelpers": {"a": "x;y"}}',
        b"[" * 100_000,
    ],
)
def test_a_file_that_is_none_of_dockers_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid):
        parse_logins(data, "config.json")


def test_a_refusal_repeats_no_login() -> None:
    with pytest.raises(Invalid) as caught:
        parse_logins(b'{"auths": {"a": {"auth": "c2VjcmV0"}}}', "config.json")
    assert "c2VjcmV0" not in caught.value.message
    assert "secret" not in caught.value.message


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_logins(tmp_path / "config.json")


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of docker-credential-test on the PATH that helpers are looked for on; not made yet."""
    monkeypatch.setattr(logins, "CLEAN_ENV", {**CLEAN_ENV, "PATH": str(tmp_path)})
    return tmp_path / "docker-credential-test"


def make(helper: Path, script: str) -> None:
    helper.write_text(f"#!/bin/sh\n{script}\n")
    os.chmod(helper, 0o755)


def test_a_helper_is_asked_for_the_host(helper: Path) -> None:
    make(helper, f'test "$1" = get; cat > {helper}.asked; echo \'{{"Username": "me", "Secret": "se:cret"}}\'')
    kept = parsed(credHelpers={"reg.example": "test"}, auths={"reg.example": {"username": "old"}})
    assert kept.find("reg.example", "app", Launcher()) == ME
    assert Path(f"{helper}.asked").read_text() == "reg.example"
    assert parsed(credsStore="test").find("docker.io", "app", Launcher()) == ME
    assert Path(f"{helper}.asked").read_text() == "https://index.docker.io/v1/"


def test_a_helpers_token_is_an_identity_token(helper: Path) -> None:
    make(helper, 'echo \'{"Username": "<token>", "Secret": "t"}\'')
    assert parsed(credsStore="test").find("reg.example", "", Launcher()) == Credentials("", "", "t")


def test_a_helper_that_keeps_nothing_for_the_host_is_no_fault(helper: Path) -> None:
    make(helper, "echo credentials not found in native keychain; exit 1")
    assert parsed(credsStore="test").find("reg.example", "", Launcher()) is None


@pytest.mark.parametrize(
    "script", ["echo secret >&2; exit 3", "echo secret", "echo '{\"Username\": 1}'", "yes secret | head -c 9999999"]
)
def test_a_helper_that_fails_is_told_without_its_words(helper: Path, script: str) -> None:
    make(helper, script)
    with pytest.raises(Failed) as caught:
        parsed(credsStore="test").find("reg.example", "", Launcher())
    assert "secret" not in caught.value.message


def test_a_helper_that_is_not_there_is_told(helper: Path) -> None:
    with pytest.raises(MissingTool, match="docker-credential-test"):
        parsed(credsStore="test").find("reg.example", "", Launcher())


def test_a_secrets_config_runs_no_program(helper: Path) -> None:
    make(helper, f"touch {helper}.ran")
    kept = parsed(credsStore="test", credHelpers={"reg.example": "test"})
    assert kept.find("reg.example", "", None) is None
    assert not Path(f"{helper}.ran").exists()
