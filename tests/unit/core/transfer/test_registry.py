"""The registry client against a server that lies, stalls, redirects and breaks off."""

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from core.clock import SystemClock, VirtualClock
from core.content.ingest import WrongBytes
from core.content.store import ContentStore
from core.digest import Digest
from core.errors import AgentError, Denied, Invalid, NotFound, OverLimit, TimedOut, Unavailable
from core.transfer import manifests, platform, reference
from core.transfer.auth import Credentials
from core.transfer.faults import Throttled
from core.transfer.ports import CannotResume, Descriptor
from core.transfer.pull import pull
from core.transfer.registry import Registry
from tests.fakes.hostile_http import HostileServer, Reply
from tests.fakes.images import Image

LOGIN = Credentials("me", "secret")
DATA = b"some bytes of a layer"
BLOB = Descriptor("x", Digest.of(DATA), len(DATA))
PATH = f"/v2/app/blobs/{BLOB.digest}"
MANIFEST = "/v2/app/manifests/1"


class Hurried(VirtualClock):
    """Ten seconds pass between any two looks at it."""

    def monotonic(self) -> float:
        self.advance(10.0)
        return super().monotonic()


def client(server: HostileServer, login: Credentials | None = None, tag: str = ":1", patience: float = 5.0) -> Registry:
    return Registry(reference.parse(f"{server.host}/app{tag}"), login, SystemClock(), patience=patience)


def fetched(server: HostileServer, login: Credentials | None = None, patience: float = 5.0) -> bytes:
    with client(server, login, patience=patience) as registry:
        return b"".join(registry.blob(BLOB))


def manifest_reply(image: Image, **headers: str) -> Reply:
    stated = {"Content-Type": manifests.OCI_MANIFEST, "Docker-Content-Digest": str(image.target().digest)}
    return Reply(200, stated | headers, image.manifest)


def test_a_tag_is_resolved_without_fetching_the_manifest() -> None:
    image = Image([b"a"])
    with HostileServer({MANIFEST: manifest_reply(image)}) as server, client(server) as registry:
        assert registry.resolve() == image.target()
        assert [request.method for request in server.asked] == ["HEAD"]


def test_a_registry_that_does_not_answer_head_is_asked_with_get() -> None:
    image = Image([b"a"])
    replies = [Reply(405), manifest_reply(image, **{"Docker-Content-Digest": "sha256:lie"})]
    with HostileServer({MANIFEST: replies}) as server, client(server) as registry:
        assert registry.resolve() == image.target()


def test_a_digest_in_a_header_that_is_none_is_refused() -> None:
    reply = manifest_reply(Image([b"a"]), **{"Docker-Content-Digest": "sha256:../../etc/x"})
    with HostileServer({MANIFEST: reply}) as server, client(server) as registry, pytest.raises(Invalid):
        registry.resolve()


def test_a_manifest_of_another_type_than_its_descriptor_is_refused() -> None:
    image = Image([b"a"])
    path = f"/v2/app/manifests/{image.target().digest}"
    reply = manifest_reply(image, **{"Content-Type": manifests.DOCKER_LIST})
    with HostileServer({path: reply}) as server, client(server) as registry, pytest.raises(manifests.Ambiguous):
        registry.document(image.target())


def test_no_body_is_read_beyond_one_byte_more_than_its_size() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 65536

    with HostileServer({PATH: Reply(200, {}, endless)}) as server:
        assert len(fetched(server)) == BLOB.size + 1


def test_a_manifest_without_end_is_cut_at_one_byte_more_than_its_size() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b" " * 65536

    target = Image([b"a"]).target()
    path = f"/v2/app/manifests/{target.digest}"
    reply = Reply(200, {"Content-Type": manifests.OCI_MANIFEST}, endless)
    with HostileServer({path: reply, MANIFEST: reply}) as server, client(server) as registry:
        assert len(registry.document(target)) == target.size + 1
        with pytest.raises(OverLimit):
            registry.resolve()


def test_a_tag_that_moves_between_resolve_and_pull_changes_nothing(tmp_path: Path) -> None:
    first, second = Image([b"first"]), Image([b"second"])
    replies: dict[str, Reply | list[Reply]] = {
        f"/v2/app/{kind}/{digest}": Reply(200, {"Content-Type": manifests.OCI_MANIFEST}, data)
        for image in (first, second)
        for digest, data in image.blobs().items()
        for kind in ("manifests", "blobs")
    }
    replies[MANIFEST] = [manifest_reply(first), manifest_reply(second)]
    with HostileServer(replies) as server, client(server) as registry, ContentStore(tmp_path).span() as span:
        pulled = pull(registry, platform.parse("linux/amd64"), span=span, clock=SystemClock())
    assert pulled.target == first.target()
    assert set(ContentStore(tmp_path).walk()) == set(first.blobs())


def test_a_token_service_that_drips_is_given_up() -> None:
    def drip() -> Iterator[bytes]:
        while True:
            yield b" "

    with HostileServer({"/token": Reply(200, {}, drip)}) as server:
        server.replies[PATH] = [Reply(401, {"WWW-Authenticate": f'Bearer realm="{server.url}/token"'})]
        registry = Registry(reference.parse(f"{server.host}/app:1"), LOGIN, Hurried())
        with registry, pytest.raises(AgentError):
            list(registry.blob(BLOB))
        assert len(server.asked) == 2


def test_a_missing_tag_is_told_with_the_tags_that_are_there() -> None:
    tags = Reply(200, {"Link": '<http://evil.example/>; rel="next"'}, b'{"name":"app","tags":["2","3"]}')
    with HostileServer({"/v2/app/tags/list": tags}) as server, client(server) as registry:
        with pytest.raises(NotFound) as caught:
            registry.resolve()
        assert "no tag '1'" in caught.value.message
        assert caught.value.hint() == "Tags there: 2, 3."
        assert all("evil" not in request.path for request in server.asked)


def test_a_missing_repository_is_told() -> None:
    body = b'{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known"}]}'
    replies = {MANIFEST: Reply(404, {}, body)}
    with (
        HostileServer(replies) as server,
        client(server) as registry,
        pytest.raises(NotFound, match="repository name not known"),
    ):
        registry.resolve()


def test_basic_credentials_are_sent_only_after_they_were_asked_for() -> None:
    replies = {PATH: [Reply(401, {"WWW-Authenticate": 'Basic realm="x"'}, b"no"), Reply(200, {}, DATA)]}
    with HostileServer(replies) as server:
        assert fetched(server, LOGIN) == DATA
        assert [request.authorization for request in server.asked] == [None, LOGIN.basic()]


def test_wrong_credentials_are_denied_after_one_try() -> None:
    body = b'{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}'
    with HostileServer({PATH: Reply(401, {"WWW-Authenticate": 'Basic realm="x"'}, body)}) as server:
        with pytest.raises(Denied, match="who are you") as caught:
            fetched(server, LOGIN)
        assert "check the Secret" in caught.value.hint()
        assert len(server.asked) == 2
        assert "secret" not in str(caught.value)


def test_a_bearer_token_is_asked_for_once_and_kept() -> None:
    with HostileServer() as server:
        challenge = f'Bearer realm="{server.url}/token",service="s",scope="repository:app:pull"'
        server.replies[PATH] = [Reply(401, {"WWW-Authenticate": challenge}), Reply(200, {}, DATA)]
        server.replies["/token"] = [Reply(200, {}, b'{"token":"t1"}')]
        with client(server, LOGIN) as registry:
            assert b"".join(registry.blob(BLOB)) == DATA
            assert b"".join(registry.blob(BLOB)) == DATA
        sent = [request.authorization for request in server.asked]
        assert sent == [None, LOGIN.basic(), "Bearer t1", "Bearer t1"]


def test_a_bearer_token_that_has_expired_is_renewed() -> None:
    with HostileServer() as server:
        unauthorized = Reply(401, {"WWW-Authenticate": f'Bearer realm="{server.url}/token"'})
        ok = Reply(200, {}, DATA)
        server.replies[PATH] = [unauthorized, ok, unauthorized, ok]
        server.replies["/token"] = [Reply(200, {}, b'{"token":"t1"}'), Reply(200, {}, b'{"token":"t2"}')]
        with client(server) as registry:
            assert b"".join(registry.blob(BLOB)) == b"".join(registry.blob(BLOB)) == DATA
        assert server.logins() == ["Bearer t1", "Bearer t1", "Bearer t2"]


def test_an_identity_token_buys_a_token_by_a_form() -> None:
    with HostileServer({"/token": Reply(200, {}, b'{"access_token":"t"}')}) as server:
        challenge = f'Bearer realm="{server.url}/token",service="s",scope="repository:app:pull repository:base:pull"'
        server.replies[PATH] = [Reply(401, {"WWW-Authenticate": challenge}), Reply(200, {}, DATA)]
        assert fetched(server, Credentials("", "", "identity")) == DATA
        asked = next(request for request in server.asked if request.method == "POST")
        form = parse_qs(asked.form.decode())
        assert (asked.path, asked.authorization) == ("/token", None)
        assert (form["grant_type"], form["refresh_token"]) == (["refresh_token"], ["identity"])
        assert form["scope"] == ["repository:app:pull repository:base:pull"]
        assert server.logins() == ["Bearer t"]


def test_each_of_several_scopes_is_asked_for() -> None:
    with HostileServer({"/token": Reply(200, {}, b'{"token":"t"}')}) as server:
        challenge = f'Bearer realm="{server.url}/token",scope="repository:app:pull repository:base:pull"'
        server.replies[PATH] = [Reply(401, {"WWW-Authenticate": challenge}), Reply(200, {}, DATA)]
        assert fetched(server) == DATA
        asked = next(request.path for request in server.asked if request.path.startswith("/token"))
        assert parse_qs(urlsplit(asked).query)["scope"] == ["repository:app:pull", "repository:base:pull"]


def test_an_identity_token_is_not_sent_as_a_password() -> None:
    with HostileServer({PATH: Reply(401, {"WWW-Authenticate": 'Basic realm="x"'})}) as server:
        with pytest.raises(Denied):
            fetched(server, Credentials("", "", "identity"))
        assert server.logins() == []


def test_a_token_service_on_another_plain_host_gets_no_credentials() -> None:
    with HostileServer({"/token": Reply(200, {}, b'{"token":"t"}')}) as evil:
        challenge = {"WWW-Authenticate": f'Bearer realm="{evil.url}/token"'}
        with (
            HostileServer({PATH: Reply(401, challenge)}) as server,
            pytest.raises(Denied, match="neither https nor the registry"),
        ):
            fetched(server, LOGIN)
        assert evil.asked == []


def test_a_token_reply_without_end_is_cut() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 65536

    with HostileServer({"/token": Reply(200, {}, endless)}) as server:
        server.replies[PATH] = [Reply(401, {"WWW-Authenticate": f'Bearer realm="{server.url}/token"'})]
        with pytest.raises(Denied, match="no token"):
            fetched(server)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_port_loses_the_login(status: int) -> None:
    with HostileServer({"/elsewhere": Reply(200, {}, DATA)}) as storage:
        moved = Reply(status, {"Location": f"{storage.url}/elsewhere"})
        with HostileServer({PATH: [Reply(401, {"WWW-Authenticate": 'Basic realm="x"'}), moved]}) as server:
            assert fetched(server, LOGIN) == DATA
            assert server.logins() == [LOGIN.basic()]
        assert storage.logins() == []


def test_storage_that_asks_for_a_login_gets_none() -> None:
    """CVE-2020-15157: a layer elsewhere answers 401 to harvest the registry's credentials."""
    with HostileServer({"/x": Reply(401, {"WWW-Authenticate": 'Basic realm="x"'})}) as evil:
        with HostileServer({PATH: Reply(307, {"Location": f"{evil.url}/x"})}) as server, pytest.raises(Denied):
            fetched(server, LOGIN)
        assert len(evil.asked) == 1
        assert evil.logins() == []


def test_redirects_end_after_five() -> None:
    with HostileServer({PATH: Reply(307, {"Location": PATH})}) as server:
        with pytest.raises(Invalid, match="more than 5"):
            fetched(server)
        assert len(server.asked) == 6


@pytest.mark.parametrize("location", ["http://169.254.169.254/x", "file:///etc/passwd", "http://example.org/x"])
def test_a_redirect_to_metadata_file_or_plain_http_is_refused(location: str) -> None:
    with HostileServer({PATH: Reply(307, {"Location": location})}) as server, pytest.raises(Denied):
        fetched(server)


def test_a_registry_that_wants_us_to_wait_says_how_long() -> None:
    with HostileServer({PATH: Reply(429, {"Retry-After": "999999"})}) as server:
        with pytest.raises(Throttled) as caught:
            fetched(server)
        assert caught.value.seconds == 300.0


def test_a_server_error_is_passed_on_with_its_words() -> None:
    with (
        HostileServer({PATH: Reply(503, {}, b"disk on fire")}) as server,
        pytest.raises(Unavailable, match="503: disk on fire"),
    ):
        fetched(server)


def test_a_reset_in_the_middle_is_unavailable() -> None:
    def broken() -> Iterator[bytes | None]:
        yield DATA[:5]
        yield None

    reply = Reply(200, {"Content-Length": str(len(DATA))}, broken)
    with HostileServer({PATH: reply}) as server, pytest.raises(Unavailable):
        fetched(server)


def test_a_length_that_lies_is_unavailable() -> None:
    reply = Reply(200, {"Content-Length": "1000", "Connection": "close"}, lambda: [DATA])
    with HostileServer({PATH: reply}) as server, pytest.raises(Unavailable), client(server) as registry:
        list(registry.blob(Descriptor("x", BLOB.digest, 1000)))


def test_a_body_that_drips_is_given_up() -> None:
    held = threading.Event()

    def drip() -> Iterator[bytes]:
        for _ in range(40):
            yield b"0123456789"
            held.wait(0.005)

    with HostileServer({PATH: Reply(200, {}, drip)}) as server:
        registry = Registry(reference.parse(f"{server.host}/app:1"), None, Hurried())
        with registry, pytest.raises(TimedOut, match="less than"):
            list(registry.blob(Descriptor("x", BLOB.digest, 10_000)))


def test_a_header_that_drips_is_given_up() -> None:
    held = threading.Event()

    def drip() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n"
        for _ in range(100):
            yield b"X"
            held.wait(0.02)

    with HostileServer({PATH: Reply(body=drip, raw=True)}) as server, pytest.raises(TimedOut):
        fetched(server, patience=0.2)


def test_silence_is_given_up() -> None:
    held = threading.Event()

    def silent() -> Iterator[bytes]:
        held.wait(1.0)
        yield b""

    with HostileServer({PATH: Reply(body=silent, raw=True)}) as server, pytest.raises(TimedOut):
        fetched(server, patience=0.1)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A" * 70_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
    ids=range(7),
)
def test_an_answer_that_is_no_http_is_unavailable(raw: bytes) -> None:
    with HostileServer({PATH: Reply(body=raw, raw=True)}) as server, pytest.raises(Unavailable):
        fetched(server)


def test_a_chunk_of_negative_length_gives_no_more_than_what_came() -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc"
    with HostileServer({PATH: Reply(body=raw, raw=True)}) as server, contextlib.suppress(AgentError):
        assert len(fetched(server)) <= len(raw)


def test_nobody_listening_is_unavailable() -> None:
    with HostileServer() as server:
        gone = server.host
    with (
        Registry(reference.parse(f"{gone}/app"), None, SystemClock()) as registry,
        pytest.raises(Unavailable, match="refused"),
    ):
        registry.resolve()


def redirected_to(url: str) -> HostileServer:
    return HostileServer({PATH: Reply(307, {"Location": url})})


def test_a_certificate_that_nobody_signed_is_told_in_clear_words(tmp_path: Path) -> None:
    key, crt, both = (tmp_path / name for name in ("key", "crt", "both"))
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=x -keyout {key} -out {crt}"
    try:
        subprocess.run(command.split(), check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    both.write_bytes(key.read_bytes() + crt.read_bytes())
    with (
        HostileServer(certificate=both) as secure,
        redirected_to(secure.url) as server,
        pytest.raises(Denied, match="not trusted") as caught,
    ):
        fetched(server)
    assert "trust store" in caught.value.hint()


def test_a_registry_without_tls_is_told_in_clear_words() -> None:
    with (
        HostileServer() as plain,
        redirected_to(plain.url.replace("http", "https")) as server,
        pytest.raises(Denied, match="does not speak TLS"),
    ):
        fetched(server)


REST = Reply(206, {"Content-Range": f"bytes 5-{BLOB.size - 1}/{BLOB.size}", "ETag": "one"}, DATA[5:])


def rest(server: HostileServer) -> bytes:
    with client(server) as registry:
        return b"".join(registry.blob(BLOB, 5))


def test_the_rest_of_a_blob_is_asked_for_alone() -> None:
    with HostileServer({PATH: REST}) as server:
        assert rest(server) == DATA[5:]
        assert [request.range for request in server.asked] == ["bytes=5-"]


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, {}, DATA),
        Reply(416),
        Reply(206, {}, DATA[5:]),
        Reply(206, {"Content-Range": f"bytes 0-{BLOB.size - 1}/{BLOB.size}"}, DATA),
        Reply(206, {"Content-Range": f"bytes 5-{BLOB.size - 2}/{BLOB.size}"}, DATA[5:-1]),
        Reply(206, {"Content-Range": f"bytes 5-{BLOB.size - 1}/{BLOB.size + 1}"}, DATA[5:]),
        Reply(206, {"Content-Range": f"bytes 5-{BLOB.size - 1}/*"}, DATA[5:]),
        Reply(206, {"Content-Range": "nonsense"}, DATA[5:]),
    ],
    ids=["ignored", "refused", "unsaid", "whole", "short", "another", "unsized", "nonsense"],
)
def test_another_part_than_the_one_asked_for_is_not_taken(reply: Reply) -> None:
    with HostileServer({PATH: reply}) as server, pytest.raises(CannotResume):
        rest(server)


def test_the_rest_of_something_else_is_not_taken() -> None:
    with HostileServer({PATH: [Reply(200, {"ETag": "zero"}, DATA), REST]}) as server, client(server) as registry:
        assert b"".join(registry.blob(BLOB)) == DATA
        with pytest.raises(CannotResume, match="another one"):
            list(registry.blob(BLOB, 5))


def test_a_range_where_the_whole_was_asked_for_is_refused() -> None:
    with HostileServer({PATH: REST}) as server, pytest.raises(AgentError, match="206"):
        fetched(server)


def test_a_size_other_than_promised_is_told_before_a_byte_is_read() -> None:
    with HostileServer({PATH: Reply(200, {}, DATA + b"x")}) as server, pytest.raises(WrongBytes, match="22 bytes"):
        fetched(server)


def test_a_server_error_may_say_how_long_to_wait() -> None:
    with HostileServer({PATH: Reply(503, {"Retry-After": "3"})}) as server, pytest.raises(Unavailable) as caught:
        fetched(server)
    assert caught.value.seconds == 3.0
