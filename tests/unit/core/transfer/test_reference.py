"""The grammar of image references."""

import pytest

from core.digest import Digest
from core.errors import Invalid
from core.transfer.reference import parse

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.25", "docker.io/library/nginx:1.25"),
        ("bitnami/redis", "docker.io/bitnami/redis:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("registry.local:5000/a/b/c:x", "registry.local:5000/a/b/c:x"),
        ("Registry.Example/app", "registry.example/app:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        (f"ghcr.io/a/b@sha256:{HEX}", f"ghcr.io/a/b@sha256:{HEX}"),
        (f"ghcr.io/a/b:1@sha256:{HEX}", f"ghcr.io/a/b:1@sha256:{HEX}"),
        ("a__b/c-d.e", "docker.io/a__b/c-d.e:latest"),
    ],
)
def test_a_name_has_one_normal_form(text: str, normal: str) -> None:
    assert str(parse(text)) == normal
    assert parse(normal) == parse(text)


def test_the_hub_is_reached_at_its_registry() -> None:
    assert parse("nginx").host == "registry-1.docker.io"
    assert parse("localhost:5000/nginx").host == "localhost:5000"


def test_a_digest_is_a_value() -> None:
    assert parse(f"a@sha256:{HEX}").digest == Digest("sha256", HEX)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "evil.com/../../x",
        "host:99999/x",
        "host:0/x",
        "host:12x/x",
        "a" * 5000,
        "example.com/" + "a" * 256,
        "example。com/x",
        "exämple.com/x",
        "еxample.com/x",
        "Nginx",
        "a//b",
        "/a",
        "a/",
        "a:",
        "a:b:c",
        "a:" + "t" * 129,
        "a@sha256:short",
        f"a@sha256:{HEX.upper()}",
        f"a@sha1:{HEX}",
        f"a@sha256:{HEX}@sha256:{HEX}",
        "a@sha256:../../etc/x",
        HEX,
        "a b",
        "a\n",
        "user@host/x",
        "http://host/x",
        "-x.com/a",
        "host.:5000/a",
        "a/./b",
        "[::1/a",
    ],
)
def test_what_is_no_reference_is_refused_before_a_url_is_made(text: str) -> None:
    with pytest.raises(Invalid):
        parse(text)
