"""Which proxy a request goes through."""

import pytest

from core.errors import Invalid
from core.transfer.proxies import Proxies, Proxy, masked

BOTH = ("http://p.example:3128", "https://s.example")


def test_each_scheme_has_its_own_proxy() -> None:
    proxies = Proxies.of(*BOTH)
    assert proxies.choose("http", "a.example", 80) == Proxy("http://p.example:3128")
    assert proxies.choose("https", "a.example", 443) == Proxy("https://s.example:443")
    assert Proxies().choose("https", "a.example", 443) is None


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_is_never_asked_through_a_proxy(host: str) -> None:
    assert Proxies.of(*BOTH).choose("http", host, 5000) is None


@pytest.mark.parametrize(
    ("entry", "host", "port", "direct"),
    [
        ("*", "a.example", 443, True),
        ("example.org", "example.org", 443, True),
        ("example.org", "a.example.org", 443, True),
        ("example.org", "anexample.org", 443, False),
        (".example.org", "a.example.org", 443, True),
        ("*.example.org", "a.b.example.org", 443, True),
        ("example.org:5000", "example.org", 5000, True),
        ("example.org:5000", "example.org", 443, False),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("10.1.2.3:443", "10.1.2.3", 443, True),
        ("fd00::/8", "fd00::5", 443, True),
        ("[fd00::5]:443", "fd00::5", 443, True),
        ("[fd00::5]:443", "fd00::5", 80, False),
        ("EXAMPLE.org ", "example.org", 443, True),
        ("10.0.0.0/8", "ten.example", 443, False),
    ],
)
def test_no_proxy_is_names_addresses_and_ranges_with_or_without_a_port(
    entry: str, host: str, port: int, direct: bool
) -> None:
    assert (Proxies.of(*BOTH, [entry]).choose("https", host, port) is None) is direct


def test_the_environment_is_read_in_small_letters_first() -> None:
    env = {"HTTPS_PROXY": "http://big.example:1", "https_proxy": "http://small.example:1", "NO_PROXY": "a.example,b"}
    proxies = Proxies.from_environment(env)
    assert proxies.choose("https", "c.example", 443) == Proxy("http://small.example:1")
    assert proxies.choose("https", "x.a.example", 443) is None
    assert proxies.choose("http", "c.example", 80) is None


def test_a_proxys_login_is_taken_out_of_its_url_and_never_shown() -> None:
    proxy = Proxy.parse("http://me:p%40ss@p.example")
    assert (proxy.url, proxy.login) == ("http://p.example:80", "me:p@ss")
    assert "p@ss" not in repr(proxy)
    assert "p@ss" not in repr(Proxies.of("http://me:p%40ss@p.example", None))
    assert masked("http://me:secret@p.example") == "http://***@p.example"


@pytest.mark.parametrize("text", ["socks5://me:secret@p.example", "http://me:secret@", "http://me:secret@p:x", "://"])
def test_what_is_no_proxy_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        Proxy.parse(text)
    assert "secret" not in caught.value.message
