"""Where logins may go, decided from values."""

import base64

import pytest

from core.errors import Denied, Invalid
from core.transfer import auth
from core.transfer.auth import Again, Answer, AskToken, Credentials, after_reply, next_hop

LOGIN = Credentials("me", "secret")
URL = "https://registry.example/v2/app/manifests/1"
SCOPE = "repository:app:pull"


def test_credentials_are_never_in_a_repr() -> None:
    assert "secret" not in repr(LOGIN)
    assert base64.b64encode(b"me:secret").decode() not in repr(Again(LOGIN.basic()))


@pytest.mark.parametrize("status", [200, 404, 403, 500])
def test_only_401_asks_for_a_login(status: int) -> None:
    assert after_reply(URL, status, ['Basic realm="x"'], LOGIN, SCOPE) == Answer()


def test_basic_sends_the_same_again_with_credentials() -> None:
    assert after_reply(URL, 401, ['Basic realm="x"'], LOGIN, SCOPE) == Again(LOGIN.basic())
    assert after_reply(URL, 401, ['Basic realm="x"'], None, SCOPE) == Answer()


def test_bearer_asks_the_realm_for_a_token() -> None:
    challenge = 'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:app:pull"'
    step = after_reply(URL, 401, [challenge], LOGIN, "unused")
    assert isinstance(step, AskToken)
    assert step.url == "https://auth.example/token?service=registry.example&scope=repository%3Aapp%3Apull"
    assert step.authorization == LOGIN.basic()
    anonymous = after_reply(URL, 401, [challenge], None, "unused")
    assert isinstance(anonymous, AskToken)
    assert anonymous.authorization == ""


def test_bearer_is_preferred_to_basic_in_one_header_or_two() -> None:
    bearer, basic = 'Bearer realm="https://auth.example/token"', 'Basic realm="x"'
    for headers in ([bearer, basic], [basic, bearer], [f"{basic}, {bearer}"], [f"{bearer}, {basic}"]):
        assert isinstance(after_reply(URL, 401, headers, LOGIN, SCOPE), AskToken)


@pytest.mark.parametrize("realm", ["http://evil.example/t", "http://169.254.169.254/", "file:///etc/passwd", "", "x"])
def test_a_realm_that_is_neither_https_nor_ours_gets_nothing(realm: str) -> None:
    with pytest.raises(Denied):
        after_reply(URL, 401, [f'Bearer realm="{realm}"'], LOGIN, SCOPE)


def test_the_registry_itself_may_give_tokens_over_plain_loopback() -> None:
    step = after_reply("http://127.0.0.1:5000/v2/x", 401, ['Bearer realm="http://127.0.0.1:5000/t"'], LOGIN, SCOPE)
    assert isinstance(step, AskToken)
    with pytest.raises(Denied):
        after_reply("http://127.0.0.1:5000/v2/x", 401, ['Bearer realm="http://127.0.0.1:5001/t"'], LOGIN, SCOPE)


def test_a_challenge_with_a_line_break_is_refused() -> None:
    with pytest.raises(Denied):
        after_reply(URL, 401, ['Bearer realm="https://a.example/t",service="x\r\nH: y"'], LOGIN, SCOPE)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"token": 1}', b'{"token": "a\\r\\nb"}', b'{"token": ""}'])
def test_a_reply_without_a_token_is_denied(data: bytes) -> None:
    with pytest.raises(Denied):
        auth.parse_token(data)


def test_a_token_has_two_names() -> None:
    assert auth.parse_token(b'{"token": "t"}') == auth.parse_token(b'{"access_token": "t"}') == "Bearer t"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("localhost:5000", "http://localhost:5000"),
        ("127.9.9.9", "http://127.9.9.9"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("localhost:443", "https://localhost:443"),
        ("localhost.evil.example", "https://localhost.evil.example"),
        ("127.0.0.1.nip.io", "https://127.0.0.1.nip.io"),
        ("10.0.0.1:5000", "https://10.0.0.1:5000"),
    ],
)
def test_plain_http_is_for_literal_loopback_only(host: str, url: str) -> None:
    assert auth.base_url(host) == url


def test_a_redirect_keeps_credentials_within_one_origin_only() -> None:
    assert next_hop(URL, "/other") == ("https://registry.example/other", True)
    assert next_hop(URL, "https://registry.example:443/x#f") == ("https://registry.example:443/x", True)
    assert next_hop(URL, "https://cdn.example/x") == ("https://cdn.example/x", False)
    assert next_hop(URL, "https://registry.example:8443/x") == ("https://registry.example:8443/x", False)
    assert next_hop("http://localhost/a", "https://localhost/a")[1] is False
    assert next_hop(URL, "//cdn.example/x") == ("https://cdn.example/x", False)


@pytest.mark.parametrize(
    "location",
    [
        "http://registry.example/x",
        "http://127.0.0.1:9/x",
        "file:///etc/passwd",
        "gopher://x/",
        "unix:/run/docker.sock",
        "https://169.254.169.254/latest/meta-data",
        "https://[fe80::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://[fd00:ec2::254]/",
        "https://me:pw@evil.example/",
        "https://evil.example\\@registry.example/",
        "https://x.example/a b",
        "https://x.example:99999/",
        "https://[::1/",
    ],
)
def test_a_redirect_to_where_no_blob_is_is_refused(location: str) -> None:
    with pytest.raises(Denied):
        next_hop(URL, location)


def test_a_redirect_to_nowhere_is_refused() -> None:
    with pytest.raises(Invalid):
        next_hop(URL, "")


@pytest.mark.parametrize(
    ("address", "plain"), [("169.254.169.254", False), ("fe80::1%eth0", False), ("10.0.0.1", True)]
)
def test_the_address_behind_a_name_is_refused_as_the_name_would_be(address: str, plain: bool) -> None:
    with pytest.raises(Denied):
        auth.check_address(address, plain=plain)
    auth.check_address("10.0.0.1", plain=False)
    auth.check_address("127.0.0.1", plain=True)
