"""From an image's name to the places where it may be fetched, as the node is set up."""

import base64
import json
from pathlib import Path

import pytest

from core.clock import VirtualClock
from core.digest import Digest
from core.errors import Denied, Invalid, NotFound
from core.process import Launcher
from core.transfer import reference
from core.transfer.auth import Credentials
from core.transfer.ports import Descriptor
from reconciler.engine.remotes import Remotes, TransferSettings
from tests.fakes.hostile_http import HostileServer, Reply

DATA = b"some bytes of a layer"
BLOB = Descriptor("x", Digest.of(DATA), len(DATA))
PATH = f"/v2/app/blobs/{BLOB.digest}"
LOCKED = {PATH: [Reply(401, {"WWW-Authenticate": 'Basic realm="x"'}), Reply(200, {}, DATA)]}
ME = Credentials("me", "secret")
PAIR = {"username": b"me", "password": b"secret"}


def config_for(*hosts: str) -> bytes:
    auth = base64.b64encode(b"me:secret").decode()
    return json.dumps({"auths": {host: {"auth": auth} for host in hosts}}).encode()


def remotes(env: dict[str, str] | None = None, **settings: object) -> Remotes:
    return Remotes(TransferSettings(**settings), Launcher(), VirtualClock(), env or {})  # type: ignore[arg-type]  # a test's shorthand


def fetched(source: Remotes, server: HostileServer, secret: dict[str, bytes] | None = None) -> bytes:
    with source.open(reference.parse(f"{server.host}/app:1"), secret or {}, "login") as remote:
        return b"".join(remote.blob(BLOB))


def test_a_secret_with_a_user_and_a_password_is_for_the_registry_of_the_image() -> None:
    with HostileServer(LOCKED) as server:
        assert fetched(remotes(), server, PAIR) == DATA
        assert server.logins() == [ME.basic()]


def test_a_secret_with_dockers_config_is_for_the_hosts_in_it() -> None:
    with HostileServer(LOCKED) as server:
        assert fetched(remotes(), server, {".dockerconfigjson": config_for(server.host)}) == DATA
    with HostileServer(LOCKED) as server:
        with pytest.raises(Denied):
            fetched(remotes(), server, {".dockerconfigjson": config_for("other.example")})
        assert server.logins() == []


@pytest.mark.parametrize("secret", [{"user": b"me"}, {"username": b"me"}, {"username": b"\xff", "password": b""}])
def test_a_secret_without_a_login_is_refused(secret: dict[str, bytes]) -> None:
    with HostileServer() as server, pytest.raises(Invalid, match="secret/login holds no login"):
        fetched(remotes(), server, secret)


def test_the_nodes_own_file_of_logins_counts_where_the_image_names_none(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    for settings, env in (
        ({"docker_config": file}, {}),
        ({}, {"REGISTRY_AUTH_FILE": str(file)}),
        ({}, {"DOCKER_CONFIG": str(tmp_path)}),
    ):
        with HostileServer(LOCKED) as server:
            file.write_bytes(config_for(server.host))
            assert fetched(remotes(env, **settings), server) == DATA
            assert server.logins() == [ME.basic()]


def test_a_file_of_logins_is_read_only_when_a_login_is_asked_for(tmp_path: Path) -> None:
    missing = remotes(docker_config=tmp_path / "none.json")
    with HostileServer({PATH: Reply(200, {}, DATA)}) as server:
        assert fetched(missing, server) == DATA
    with HostileServer(LOCKED) as server, pytest.raises(NotFound, match=r"none\.json"):
        fetched(missing, server)


def test_the_login_of_a_mirror_is_its_own(tmp_path: Path) -> None:
    with HostileServer(LOCKED) as mirror, HostileServer(LOCKED) as server:
        folder = tmp_path / server.host
        folder.mkdir()
        (folder / "hosts.toml").write_text(f'[host."{mirror.url}"]\n')
        source = remotes(hosts=(tmp_path,))
        assert fetched(source, server, PAIR) == DATA
        assert mirror.logins() == []
        assert server.logins() == [ME.basic()]
        mirror.replies[PATH], server.replies[PATH] = list(LOCKED[PATH]), []
        assert fetched(source, server, {".dockerconfigjson": config_for(mirror.host)}) == DATA
        assert mirror.logins() == [ME.basic()]


def test_what_fails_is_remembered_from_one_image_to_the_next() -> None:
    source = remotes()
    with HostileServer({PATH: Reply(429, {"Retry-After": "200"})}) as server:
        with pytest.raises(Exception, match="asks to wait"):
            fetched(source, server)
        with pytest.raises(Exception, match="asked again later") as caught:
            fetched(source, server)
        assert caught.value.seconds > 190
        assert len(server.asked) == 1
