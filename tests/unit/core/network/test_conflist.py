"""Network lists: what is read, what is refused, and the subnet that is free."""

import json

import pytest

from core.errors import Invalid, Unsupported
from core.network.conflist import SUBNETS, choose, default, free_subnet, parse

LIST = {"cniVersion": "1.0.0", "name": "lan", "plugins": [{"type": "bridge", "capabilities": {"portMappings": True}}]}


def test_a_list_comes_back_as_it_was_written() -> None:
    read = parse(json.dumps(LIST).encode(), "10-lan.conflist")
    assert (read.name, read.version, read.capability("portMappings"), read.capability("dns")) == (
        "lan", "1.0.0", True, False,
    )  # fmt: skip
    assert parse(json.dumps(read.to_json()).encode(), "again") == read


def test_a_single_plugin_is_a_list_of_one() -> None:
    read = parse(b'{"cniVersion": "0.4.0", "name": "lan", "type": "macvlan"}', "lan.conf")
    assert [plugin["type"] for plugin in read.plugins] == ["macvlan"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", "not JSON"),
        (b"[" * 20_000, "not JSON"),
        (b"[]", "no network configuration"),
        (json.dumps({**LIST, "name": "../lan"}).encode(), "no name"),
        (json.dumps({**LIST, "plugins": []}).encode(), "names no plugins"),
        (json.dumps({**LIST, "plugins": [{"type": "../../bin/sh"}]}).encode(), "has no type"),
        (json.dumps({**LIST, "plugins": "bridge"}).encode(), "names no plugins"),
    ],
)
def test_what_is_no_list_is_refused(text: bytes, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        parse(text, "10-lan.conflist")


def test_a_version_that_passes_no_result_on_is_refused() -> None:
    with pytest.raises(Unsupported, match=r"cniVersion '0\.2\.0'"):
        parse(json.dumps({**LIST, "cniVersion": "0.2.0"}).encode(), "10-lan.conflist")


def test_the_first_list_of_a_name_is_chosen() -> None:
    one = parse(json.dumps(LIST).encode(), "a")
    assert choose([one], "lan") is one
    assert choose([one], "wan") is None


def test_the_default_subnet_keeps_clear_of_what_the_host_routes() -> None:
    assert free_subnet(["0.0.0.0/0"]) == str(SUBNETS[0])
    assert free_subnet(["10.88.0.0/16"]) == "10.89.0.0/24"
    assert free_subnet([str(SUBNETS[0])]) == str(SUBNETS[1])
    with pytest.raises(Unsupported, match="every subnet"):
        free_subnet(["10.0.0.0/8"])


def test_the_default_network_maps_ports_and_is_a_list() -> None:
    made = default("default", "rc01234567", "10.88.0.0/24", "/leases")
    assert made.capability("portMappings")
    assert parse(json.dumps(made.to_json()).encode(), "made") == made
