"""Which platform serves which."""

import pytest

from core.errors import Invalid
from core.transfer.platform import acceptable, missing, normalised, of_node, parse


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("Linux/ARM/6", "linux/arm/v6"),
        ("wasi/wasm", "wasi/wasm"),
    ],
)
def test_a_platform_has_one_spelling(text: str, normal: str) -> None:
    assert str(parse(text)) == normal


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/am d64", "linux/\u0430md64"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse(text)


def test_an_older_variant_serves_a_newer_one_and_not_the_other_way_round() -> None:
    assert [str(p) for p in acceptable(parse("linux/arm/v7"))] == ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]
    assert [str(p) for p in acceptable(parse("linux/amd64/v3"))] == ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"]
    assert acceptable(parse("linux/amd64")) == [parse("linux/amd64")]


def test_the_node_has_a_platform() -> None:
    assert of_node() == normalised("linux", of_node().architecture, of_node().variant)


def test_what_is_missing_is_told_with_what_is_there() -> None:
    error = missing("app:1", parse("linux/arm64"), [parse("linux/amd64"), parse("linux/s390x")])
    assert "linux/arm64" in error.message
    assert "linux/amd64, linux/s390x" in error.message
