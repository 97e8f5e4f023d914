"""TLS, proxies and plain HTTP: who is believed, who is asked, and what is said when it fails."""

import base64
from pathlib import Path

import pytest

from core.clock import SystemClock, VirtualClock
from core.digest import Digest
from core.errors import AgentError, Denied, Invalid, Unavailable
from core.transfer import reference
from core.transfer.auth import Credentials
from core.transfer.endpoints import Endpoint, Trust, Ways
from core.transfer.faults import WrongClock
from core.transfer.manners import Manners
from core.transfer.ports import Descriptor
from core.transfer.proxies import Proxies
from core.transfer.registry import Registry
from tests.fakes.connect_proxy import ConnectProxy
from tests.fakes.hostile_http import HostileServer, Reply
from tests.git_server import Certificate, make_certificate

DATA = b"some bytes of a layer"
BLOB = Descriptor("x", Digest.of(DATA), len(DATA))
PATH = f"/v2/app/blobs/{BLOB.digest}"
SERVING = {PATH: Reply(200, {}, DATA)}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def both(certificate: Certificate) -> Path:
    """Certificate and key in one file."""
    file = certificate.chain.with_name("both.pem")
    file.write_bytes(certificate.key.read_bytes() + certificate.chain.read_bytes())
    return file


def fetched(
    url: str, trust: Trust | None = None, ways: Ways | None = None, login: Credentials | None = None, wall: float = 0
) -> bytes:
    place = Endpoint(f"{url}/v2", trust=trust or Trust())
    clock = VirtualClock(wall) if wall else SystemClock()
    named = reference.parse(f"{place.host}/app:1")
    with Registry(named, login, clock, patience=5.0, endpoint=place, ways=ways or Ways()) as registry:
        return b"".join(registry.blob(BLOB))


def test_a_private_authority_is_believed_when_it_is_named(certificate: Certificate) -> None:
    with HostileServer(SERVING, certificate=both(certificate)) as server:
        with pytest.raises(Denied, match="not trusted"):
            fetched(server.url)
        assert server.asked == []
        assert fetched(server.url, ways=Ways(ca=certificate.ca)) == DATA
        assert fetched(server.url, Trust(ca=(certificate.ca,))) == DATA


def test_verification_can_be_switched_off_for_a_host_and_is_on_for_where_it_sends_us(certificate: Certificate) -> None:
    lax = Trust(skip_verify=True)
    with HostileServer({"/x": Reply(200, {}, DATA)}, certificate=both(certificate)) as storage:
        replies = {PATH: Reply(307, {"Location": f"{storage.url}/x"})}
        with (
            HostileServer(replies, certificate=both(certificate)) as server,
            pytest.raises(Denied, match="not trusted"),
        ):
            fetched(server.url, lax)
        assert len(server.asked) == 1
        assert storage.asked == []
    with HostileServer(SERVING, certificate=both(certificate)) as server:
        assert fetched(server.url, lax) == DATA


def test_our_own_certificate_is_shown_to_the_host_it_is_for(certificate: Certificate) -> None:
    with HostileServer(SERVING, certificate=both(certificate), client_ca=certificate.ca) as server:
        with pytest.raises(AgentError):
            fetched(server.url, Trust((certificate.ca,)))
        pair = (certificate.chain, certificate.key)
        assert fetched(server.url, Trust((certificate.ca,), (pair,))) == DATA
        assert fetched(server.url, Trust((certificate.ca,), ((both(certificate), None),))) == DATA


@pytest.mark.parametrize("text", ["", "nonsense"])
def test_a_file_of_authorities_that_holds_none_is_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(text)
    with pytest.raises(Invalid, match=r"ca\.pem holds no usable certificate"):
        fetched("https://127.0.0.1:9", ways=Ways(ca=file))
    with pytest.raises(AgentError, match=r"reading .*/none\.pem"):
        fetched("https://127.0.0.1:9", ways=Ways(ca=tmp_path / "none.pem"))


def test_a_certificate_of_the_future_is_told_as_clock_skew(tmp_path: Path) -> None:
    future = make_certificate(tmp_path, start="20980101000000Z")
    with HostileServer(SERVING, certificate=both(future)) as server:
        with pytest.raises(WrongClock, match="the time this node has") as caught:
            fetched(server.url, ways=Ways(ca=future.ca))
        assert "clock skew" in caught.value.hint().lower()


def test_an_expired_certificate_is_clock_skew_only_when_the_node_says_1970(tmp_path: Path) -> None:
    past = make_certificate(tmp_path, end="20210101000000Z")
    with HostileServer(SERVING, certificate=both(past)) as server:
        with pytest.raises(Denied, match="expired"):
            fetched(server.url, ways=Ways(ca=past.ca))
        with pytest.raises(WrongClock, match="1970"):
            fetched(server.url, ways=Ways(ca=past.ca), wall=1000.0)


def test_plain_http_is_for_loopback_and_for_the_hosts_that_are_named() -> None:
    with HostileServer({f"http://reg.example:5000{PATH}": Reply(200, {}, DATA)}) as proxy:
        proxies = Proxies.of(proxy.url, None)
        named = reference.parse("reg.example:5000/app:1")
        plain = Ways(proxies, plain={"reg.example:5000"}, manners=Manners(SystemClock()))
        with Registry(named, None, SystemClock(), ways=plain) as registry:
            assert b"".join(registry.blob(BLOB)) == DATA
        assert [request.path for request in proxy.asked] == [f"http://reg.example:5000{PATH}"]


def test_a_named_host_may_not_send_us_to_another_by_plain_http() -> None:
    moved = Reply(307, {"Location": "http://other.example:5000/x"})
    with HostileServer({f"http://reg.example:5000{PATH}": moved}) as proxy:
        ways = Ways(Proxies.of(proxy.url, None), plain={"reg.example:5000"})
        with (
            Registry(reference.parse("reg.example:5000/app:1"), None, SystemClock(), ways=ways) as registry,
            pytest.raises(Denied, match="plain HTTP"),
        ):
            list(registry.blob(BLOB))
        assert len(proxy.asked) == 1


def test_https_goes_through_a_tunnel_and_the_proxy_sees_no_login(certificate: Certificate) -> None:
    me, replies = Credentials("me", "secret"), [Reply(401, {"WWW-Authenticate": 'Basic realm="x"'}), SERVING[PATH]]
    with HostileServer({PATH: replies}, certificate=both(certificate)) as server:
        port = int(server.host.rpartition(":")[2])
        with ConnectProxy(port, base64.b64encode(b"who:pass").decode()) as proxy:
            ways = Ways(Proxies.of(None, f"http://who:pass@{proxy.host}"))
            assert fetched("https://reg.example", Trust(skip_verify=True), ways, me) == DATA
            assert proxy.asked[0].startswith(b"CONNECT reg.example:443 ")
            assert all(me.basic().encode() not in head for head in proxy.asked)
    assert server.logins() == [me.basic()]


def test_a_proxy_that_wants_a_login_is_told_without_one(certificate: Certificate) -> None:
    with ConnectProxy(9, "something") as proxy:
        ways = Ways(Proxies.of(None, f"http://who:topsecret@{proxy.host}"))
        with pytest.raises(Denied, match="wants a login") as caught:
            fetched("https://reg.example", ways=ways)
        assert "topsecret" not in caught.value.message
    with HostileServer({f"http://reg.example:5000{PATH}": Reply(407)}) as plain:
        ways = Ways(Proxies.of(plain.url, None), plain={"reg.example:5000"})
        with pytest.raises(Denied, match="wants a login"):
            fetched("http://reg.example:5000", ways=ways)


def test_a_proxy_that_is_down_is_told_as_such() -> None:
    with HostileServer() as gone:
        pass
    ways = Ways(Proxies.of(None, gone.url))
    with pytest.raises(Unavailable, match="through the proxy"):
        fetched("https://reg.example", ways=ways)


def test_loopback_is_asked_directly_whatever_the_proxy() -> None:
    with HostileServer() as proxy, HostileServer(SERVING) as server:
        assert fetched(server.url, ways=Ways(Proxies.of(proxy.url, proxy.url))) == DATA
        assert proxy.asked == []
