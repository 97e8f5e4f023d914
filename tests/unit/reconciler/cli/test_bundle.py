"""The support bundle: what is in it, what never is, and that it stays small."""

from __future__ import annotations

import base64
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.cli import bundle as bundles
from reconciler.cli.scrubbing import Scrubber, bare, logins_in
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object
from reconciler.store.port import Event
from tests.unit.reconciler.cli.conftest import Cli
from tests.unit.reconciler.cli.objects import NOW, condition, made, status, web

CANARIES = {
    "secret": "cn4ry-stringdata-value",
    "data": "cn4ry-base64-data",
    "env": "cn4ry-plain-variable",
    "file": "cn4ry-inline-file",
    "arg": "cn4ry-argument",
    "flag": "cn4ry-flag=with=equals",
    "url": "cn4ry-url-password",
    "docker": "cn4ry-docker-login",
    "proxy": "cn4ry-proxy-password",
    "image": "cn4ry-image-variable",
    "header": "cn4ry-otel-header",
    "log": "cn4ry-in-a-log",
    "option": "cn4ry-runtime-option",
}


def objects() -> list[Object]:
    told = {
        "stringData": {"token": CANARIES["secret"]},
        "data": {"key": base64.b64encode(CANARIES["data"].encode()).decode()},
    }
    spec = {
        "image": "web",
        "sandbox": "web",
        "command": ["app", "--password", CANARIES["arg"], f"--api-token={CANARIES['flag']}"],
        "env": [
            {"name": "MODE", "value": CANARIES["env"]},
            {"name": "TOKEN", "valueFrom": {"secret": {"name": "login", "key": "token"}}},
        ],
        "mounts": [
            {"path": "/x", "file": "x", "fileContent": base64.b64encode(CANARIES["file"].encode()).decode()},
            {"path": "/y", "secret": "login"},
        ],
    }
    record = {
        "current": {"spec": spec, "image": {"config": {"Env": [f"DB_PASSWORD={CANARIES['image']}", "PATH=/bin"]}}},
    }
    message = f"https://me:{CANARIES['url']}@host/x refused {CANARIES['secret']}"
    seen = status(condition("Ready", "False", "Odd", message), lastError={"message": message, "hint": ""})
    return [
        made(Kind.SECRET, "login", told),
        made(Kind.CONTAINER, "web", spec, record=record, status=seen),
        made(Kind.IMAGE, "web", {"ref": "r/web:1", "credentials": {"secret": "login"}}),
    ]


def members(path: Path) -> dict[str, str]:
    with tarfile.open(path) as tar:
        found = {entry.name.partition("/")[2]: tar.extractfile(entry) for entry in tar.getmembers()}
        return {name: source.read().decode() for name, source in found.items() if source is not None}


@pytest.fixture
def told(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The members of a bundle of a node on which a secret lies in every place that may have one."""
    docker = tmp_path / "docker"
    docker.mkdir()
    auth = base64.b64encode(f"me:{CANARIES['docker']}".encode()).decode()
    (docker / "config.json").write_text(json.dumps({"auths": {"r": {"auth": auth}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(docker))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"key={CANARIES['header']}")
    config = tmp_path / "config.yaml"
    config.write_text(
        f"version: 2\ntransfer: {{proxy: {{http: 'http://me:{CANARIES['proxy']}@proxy:3128'}}}}\n"
        f"runtimes: {{odd: {{options: {{some: '{CANARIES['option']}'}}}}}}\n"
    )
    monkeypatch.setenv("RECONCILER_CONFIG", str(config))
    login = base64.b64encode(f"x{CANARIES['docker']}y".encode()).decode()
    events = tuple(
        Event(0, Key(Kind.CONTAINER, "web"), "Warning", "Odd", f"said {text}", NOW, NOW)
        for text in (CANARIES["docker"], login, CANARIES["header"], f"password: {CANARIES['log']}", CANARIES["data"])
    )
    cli.fill(*objects(), events=events)
    logs = cli.root / "logs" / "web"
    logs.mkdir(parents=True)
    (logs / "web-1.log").write_text(f"token is {CANARIES['secret']}, Authorization: Bearer {CANARIES['log']}\n")
    made_at = tmp_path / "b.tar.gz"
    cli("doctor", "--bundle", made_at, "--with-logs")
    assert made_at.stat().st_mode & 0o777 == 0o600
    return members(made_at)


def test_no_secret_is_in_it_in_any_form(told: dict[str, str]) -> None:
    whole = "\n".join(told.values())
    for name, canary in CANARIES.items():
        assert canary not in whole, f"the canary in {name} got out"
        assert base64.b64encode(canary.encode()).decode().rstrip("=") not in whole, f"{name} got out in base64"
    assert "cn4ry" not in whole


def test_what_helps_is_in_it(told: dict[str, str]) -> None:
    about = json.loads(told["about.json"])
    assert set(about["members"]) == set(told) - {"about.json"}
    assert about["variables"] == ["OTEL_EXPORTER_OTLP_HEADERS", "RECONCILER_CONFIG"]
    names = {
        "doctor.txt",
        "config.json",
        "objects.json",
        "events.json",
        "store.txt",
        "packages.txt",
        "mountinfo.txt",
        "cgroups.txt",
        "tree.txt",
        "logs/web-1.log",
    }
    assert names <= set(told)
    kept = {one["metadata"]["name"]: one for one in json.loads(told["objects.json"])["items"] if one["kind"] != "Image"}
    variables = kept["web"]["spec"]["env"]
    assert variables[0] == {"name": "MODE", "value": "***"}
    assert variables[1]["valueFrom"] == {"secret": {"name": "login", "key": "token"}}, "a name is no secret"
    assert kept["web"]["spec"]["mounts"][1] == {"path": "/y", "secret": "login"}
    assert kept["web"]["record"]["current"]["image"]["config"]["Env"] == ["DB_PASSWORD=***", "PATH=***"]
    assert json.loads(told["config.json"])["config"]["transfer"]["proxy"]["http"] == "http://***@proxy:3128"
    assert "click" in told["packages.txt"]


def test_logs_of_workloads_come_only_when_asked_for_and_a_node_without_a_store_has_a_bundle_too(
    cli: Cli, tmp_path: Path
) -> None:
    cli.fill(web())
    (cli.root / "logs" / "web").mkdir(parents=True)
    (cli.root / "logs" / "web" / "web-1.log").write_text("theirs\n")
    cli("doctor", "--bundle", tmp_path / "b.tar.gz")
    assert "logs/web-1.log" not in members(tmp_path / "b.tar.gz")
    assert cli("doctor", "--with-logs").code == 2
    cli("--root", str(tmp_path / "none"), "doctor", "--bundle", tmp_path / "c.tar.gz")
    notes = json.loads(members(tmp_path / "c.tar.gz")["about.json"])["notes"]
    assert any(note.startswith("objects.json: empty: there is no store") for note in notes)
    assert not (tmp_path / "none").exists()


def test_it_has_a_name_of_its_own_when_it_is_given_none(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = cli("doctor", "--bundle").out
    (path,) = tmp_path.glob("reconciler-*.tar.gz")
    assert str(path) in out


def test_each_member_and_the_whole_are_bounded_and_what_is_cut_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "MOST_MEMBER", 1000)
    monkeypatch.setattr(bundles, "MOST_ALL", 2500)
    bundle = bundles.Bundle(Scrubber([]))
    bundle.add("head.txt", lambda: "a" * 5000)
    bundle.add("tail.txt", lambda: "b" * 5000 + "end", tail=True)
    bundle.add("third.txt", lambda: "c" * 900)

    def broken() -> str:
        raise PermissionError(13, "Permission denied", "/x")

    bundle.add("fourth.txt", broken)
    assert list(bundle.members) == ["head.txt", "tail.txt"]
    assert bundle.members["tail.txt"].endswith(b"end")
    assert all(len(data) < 1200 for data in bundle.members.values())
    assert [note.partition(":")[0] for note in bundle.notes] == ["head.txt", "tail.txt", "third.txt", "fourth.txt"]


LOOKS = {
    "postgres://user:pw@db/x": "postgres://***@db/x",
    "https://token@github.com/a.git": "https://***@github.com/a.git",
    "run --db-password hunter22 now": "run --db-password *** now",
    "API_TOKEN=abc;x": "API_TOKEN=***;x",
    "Authorization: Bearer abcdefghij": "Authorization: ***",
    "sent bearer abcdefghijkl.": "sent bearer ***",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----": "***",
    "AGE-SECRET-KEY-1QQQQ": "***",
    "secret/login is not there": "secret/login is not there",
    "https://registry.local:5000/v2/": "https://registry.local:5000/v2/",
    "my-secret is a name": "my-secret is a name",
}


@pytest.mark.parametrize("text", LOOKS)
def test_what_looks_like_a_secret_is_taken_out_and_names_stay(text: str) -> None:
    assert Scrubber([]).text(text) == LOOKS[text]


@given(st.text(min_size=8, max_size=40), st.text(max_size=20), st.text(max_size=20))
def test_a_known_secret_is_found_also_inside_of_base64_and_json(secret: str, before: str, after: str) -> None:
    raw = secret.encode("utf-8", "replace")
    if len(raw.strip()) < 8 or "***" in secret:
        return
    scrubber = Scrubber([raw])
    assert raw.decode() not in scrubber.text(f"{before}{raw.decode()}{after}") or "*" in secret
    whole = base64.b64encode((before + secret + after).encode("utf-8", "replace")).decode()
    assert scrubber.text(whole) != whole
    quoted = json.dumps(before + secret + after)
    assert scrubber.text(quoted) != quoted


def test_logins_are_read_from_what_docker_writes_and_nothing_else_is_an_error() -> None:
    auth = base64.b64encode(b"me:pass:word").decode()
    assert b"pass:word" in set(logins_in(json.dumps({"auths": {"r": {"auth": auth}, "s": {"identitytoken": "t"}}})))
    for text in ("", "[]", "{", '{"auths": 3}', '{"auths": {"r": {"auth": "%%%"}}}'):
        list(logins_in(text))


def test_a_bare_object_keeps_its_shape() -> None:
    for obj in objects():
        assert bare(obj)["metadata"]["name"] == obj.name
