"""Addresses and names of git: what is taken, and what never reaches git (attacks.md 2d, the first two rows)."""

import subprocess

import pytest

from reconciler.model.kinds.git import parse_commit, parse_git_address, parse_ref_name
from reconciler.model.problems import Wrong

TAKEN = {
    "https://git.example.org/edge/nodes.git": ("https", "git.example.org", None, "", "/edge/nodes.git"),
    "https://git.example.org:8443/n": ("https", "git.example.org", 8443, "", "/n"),
    "https://[::1]:8443/n": ("https", "[::1]", 8443, "", "/n"),
    "http://127.0.0.1:3000/n.git": ("http", "127.0.0.1", 3000, "", "/n.git"),
    "http://localhost/n.git": ("http", "localhost", None, "", "/n.git"),
    "ssh://git@git.example.org/edge/nodes.git": ("ssh", "git.example.org", None, "git", "/edge/nodes.git"),
    "ssh://git.example.org:2222/~me/nodes": ("ssh", "git.example.org", 2222, "", "/~me/nodes"),
    "git@git.example.org:edge/nodes.git": ("ssh", "git.example.org", None, "git", "edge/nodes.git"),
    "git.example.org:/srv/nodes.git": ("ssh", "git.example.org", None, "", "/srv/nodes.git"),
    "file:///srv/nodes.git": ("file", "", None, "", "/srv/nodes.git"),
}

REFUSED = [
    "--upload-pack=touch /tmp/pwn",
    "-oProxyCommand=touch${IFS}/tmp/pwn",
    "-oProxyCommand=x:path",
    "ssh://-oProxyCommand=x/y",
    "ssh://%2DoProxyCommand=x/y",
    "ssh://git@-oProxyCommand=x/y",
    "ssh://-oProxyCommand=x@host/y",
    "ssh://git:password@host/y",
    "git@host:-upload-pack",
    "git@host:%2Dupload-pack" + "\n",
    "ext::sh -c touch% /tmp/pwn",
    "ext::sh",
    "fd::7",
    "git::https://host/x",
    "ext://sh/x",
    "git://host/x.git",
    "ftp://host/x.git",
    "rsync://host/x.git",
    "file://host/srv/nodes.git",
    "file:/srv/nodes.git",
    "/srv/nodes.git",
    "../nodes.git",
    "",
    "https://",
    "https://host",
    "https://user@host/x.git",
    "https://user:password@host/x.git",
    "https://host:0/x",
    "https://host:70000/x",
    "https://ho st/x",
    "https://host/x\ny",
    "https://host/x\0y",
    "https://host\\@evil/x",
    "https://host/x?service=evil",
    "https://host/x#main",
    "http://git.example.org/x",
    "http://127.0.0.1.evil.org/x",
    "https://169.254.169.254/latest",
    "ssh://[fe80::1]/x",
    "https://host/" + "x" * 3000,
]

NAMES = [
    *("main", "v1.2", "feature/x", "a-b_c", "ünicode", "@home", "a@b", "release-1.0/rc1", "x.y"),
    *("", "-", "--output=/tmp/x", "-d", ".", "..", "a..b", "a/.b", "a//b", "/a", "a/", "a.lock", "a.lock/b"),
    *("a b", "a~b", "a^b", "a:b", "a?b", "a*b", "a[b", "a\\b", "a@{b", "a.", "a\x7fb", "a\tb", "a\nb"),
]


@pytest.mark.parametrize("url", TAKEN)
def test_an_address_is_taken_apart(url: str) -> None:
    found = parse_git_address(url)
    assert (found.scheme, found.host, found.port, found.user, found.path) == TAKEN[url]
    assert found.url == url


def test_a_login_is_for_scheme_host_and_port() -> None:
    assert parse_git_address("https://git.example.org:8443/n").origin == "https://git.example.org:8443"
    assert parse_git_address("https://git.example.org/n").origin == "https://git.example.org"


@pytest.mark.parametrize("url", REFUSED)
def test_an_address_that_is_none_or_would_command_git_is_refused(url: str) -> None:
    with pytest.raises(Wrong):
        parse_git_address(url)


def test_a_refused_login_is_not_repeated() -> None:
    with pytest.raises(Wrong) as refused:
        parse_git_address("https://user:geheim@host/x.git")
    assert "geheim" not in refused.value.message + refused.value.advice


def takes(name: str) -> bool:
    try:
        return parse_ref_name(name) == name
    except Wrong:
        return False


@pytest.mark.parametrize("name", NAMES)
def test_a_ref_name_is_taken_when_git_takes_it(name: str) -> None:
    known = subprocess.run(["git", "check-ref-format", "--branch", name], capture_output=True, cwd="/", check=False)
    assert takes(name) == (known.returncode == 0)


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "a\u202eb", "@"])
def test_a_ref_name_that_would_mean_something_else_or_nothing_is_refused(name: str) -> None:
    assert not takes(name)


@pytest.mark.parametrize("text", ["main", "0123abc", "A" * 40, "0" * 39, "0" * 41, "0" * 40 + "\n", "-" * 40])
def test_only_a_full_id_is_a_commit(text: str) -> None:
    with pytest.raises(Wrong):
        parse_commit(text)


def test_a_full_id_is_a_commit() -> None:
    assert parse_commit("0123456789abcdef" * 2 + "01234567") == "0123456789abcdef" * 2 + "01234567"
