"""What cannot be migrated is an error that says where, and what passwords are is said nowhere."""

from __future__ import annotations

import pytest

from migrations.config import migrate
from migrations.config.masking import masked
from migrations.config.tree import BadDocument, plain
from migrations.config.work import Settings
from tests.migrating import CRI, Moved, to


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version = 2\n[grpc\n", r"config\.toml:2:6: is not TOML"),
        ("version = 2\nversion = 3\n", r"config\.toml:2:\d+: is not TOML"),
        ("version = 2\nroot = ", r"config\.toml:2:\d+: is not TOML"),
        (f"{'.'.join('a' * 2000)} = 1\n", r"config\.toml:1:\d+: is nested too deeply"),
        (f"[{'.'.join('a' * 2000)}]\n", r"config\.toml:1:\d+: is nested too deeply"),
        (f"a = {'{a = ' * 90}1{'}' * 90}\n", r"config\.toml:1:\d+: is nested too deeply"),
        (f"a = {'[' * 9000}{']' * 9000}\n", r"config\.toml:1:1: is nested too deeply"),
        ("version = 5\n", r"config\.toml:1:1: version is 5, from the future"),
        ("version = -1\n", r"config\.toml:1:1: version must be a number"),
        ('version = "2"\n', r"config\.toml:1:1: version must be a number"),
        ("version = true\n", r"config\.toml:1:1: version must be a number"),
        ("version = 2\n[plugins.cri]\nx = 1\n", r"config\.toml:2:1: plugins\.cri is no plugin's name"),
        ('version = 2\n[plugins."a b.c.d.e"]\n', r"config\.toml:2:1: .* is no plugin's name"),
        ('[plugins."a b"]\nx = 1\n', r"config\.toml:1:1: .* is no plugin's name"),
        ('version = 2\ndisabled_plugins = ["cri"]\n', r"config\.toml:2:1: disabled_plugins names 'cri'"),
        ("version = 2\nroot = 5\n", r"config\.toml:2:1: root must be a text"),
        ("version = 2\n[grpc]\n  uid = 'x'\n", r"config\.toml:3:3: grpc\.uid must be a number"),
        ("version = 2\nplugins = 1\n", r"config\.toml:2:1: plugins must be a table"),
        ("version = 2\ngrpc = [1]\n", r"config\.toml:2:1: grpc must be a table"),
        ("version = 2\ndisabled_plugins = [1]\n", r"config\.toml:2:1: disabled_plugins must be a list of texts"),
        (f"version = 2\n[{CRI}]\nenable_selinux = 1\n", r"config\.toml:3:1: .*enable_selinux must be true or false"),
        (f"version = 2\n[{CRI}.registry]\nmirrors = []\n", r"config\.toml:3:1: .*mirrors must be a table"),
        ("[transfer]\nparallel = 3\n", r"config\.toml:1:1: transfer is a key of reconciler's"),
    ],
)
def test_a_document_that_cannot_be_is_an_error_with_its_place(text: str, said: str) -> None:
    with pytest.raises(BadDocument, match=said):
        to(4, text)


def test_no_way_leads_back() -> None:
    with pytest.raises(BadDocument, match="no way back to 2"):
        to(2, "version = 3\n")


def test_bytes_that_are_no_text_are_an_error_with_their_place() -> None:
    with pytest.raises(BadDocument, match=r"c:2:3: is not UTF-8"):
        migrate.read_containerd(b"\na \xff\n", "c", Settings())


def ours(text: str, file: str = "config.yaml") -> Moved:
    document = migrate.read_ours(text.encode(), file, Settings("/out", ours=True), migrate.format_of(file))
    return Moved(migrate.ours_to_ours(document), document.format)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("transfer:\n  parallel: 3\n", r"config\.yaml:1:1: transfer is a key of reconciler's"),
        ("version: 1\ntransfer: {}\n", r"config\.yaml:2:1: transfer is a key of version 2"),
        ("root: [\n", r"config\.yaml:\d:\d: is not YAML"),
        ("version: 3\n", r"config\.yaml:1:1: version must be 1 or 2"),
        ("version: 2\nplugins: {}\n", r"config\.yaml:2:1: plugins is no key of our configuration"),
        ("root: &a /x\n", r"config\.yaml:1:7: uses an anchor"),
        ("root: /x\nroot: /y\n", r"config\.yaml:2:1: root is there twice"),
    ],
)
def test_a_document_of_ours_that_cannot_be_is_an_error_with_its_place(text: str, said: str) -> None:
    with pytest.raises(BadDocument, match=said):
        ours(text)


V1_YAML = """\
# The node.
version: 1  # the first

root: /data   # big disk
plugins:
  cri:
    # many at once
    max_concurrent_downloads: 8
    containerd:
      snapshotter: native  # no overlay here
"""
V1_TOML = """\
# The node.
version = 1 # the first

root = "/data" # big disk
[plugins.cri]
# many at once
max_concurrent_downloads = 8
[plugins.cri.containerd]
snapshotter = "native" # no overlay here
"""
V2_YAML = """\
# The node.
version: 2 # the first

root: /data # big disk
transfer:
  # many at once
  parallel: 8
snapshots:
  default: native # no overlay here
"""
V2_TOML = """\
# The node.
version = 2 # the first

root = "/data" # big disk
[transfer]
# many at once
parallel = 8
[snapshots]
default = "native" # no overlay here
"""


@pytest.mark.parametrize(("before", "after", "file"), [(V1_YAML, V2_YAML, "c.yaml"), (V1_TOML, V2_TOML, "c.toml")])
def test_our_version_1_becomes_version_2_in_its_own_form_with_order_and_comments(
    before: str, after: str, file: str
) -> None:
    assert ours(before, file).text == after
    assert ours(after, file).text == after


def test_what_is_printed_holds_no_password() -> None:
    text = (
        f'version = 2\n[{CRI}.registry.configs."r".auth]\nusername = "joe"\npassword = "hunter2"\n'
        f'[{CRI}.registry.headers]\nAuthorization = ["Bearer hunter2"]\n'
        '[plugins."io.containerd.tracing.processor.v1.otlp"]\nendpoint = "https://joe:hunter2@c:4318"\n'
    )
    moved = to(2, text)
    assert moved.text == text
    assert "hunter2" not in masked(moved.result).decode()
    assert "hunter2" not in str(moved.result.entries)
    assert masked(to(3, "version = 2\nroot = '/r'\n").result) == b"version = 3\nroot = '/r'\n"


def test_values_of_all_kinds_are_read_as_toml_says() -> None:
    text = (
        'a = """x\n"y"\\\n  z"""\nb = \'\'\'q\'\'\'\nc = [1, # one\n  2]\nd = {e = 1, "f.g" = [{h = 2}]}\n'
        "i = 1979-05-27T07:32:00Z\nj = 0x1f\nk = 1.5e3\nl.m = true\n[[n]]\no = 1\n[[n]]\n[n.p]\nq = '#'\n"
    )
    import tomllib

    assert plain(migrate.parse(text.encode(), "c", "toml")) == tomllib.loads(text)
    again = migrate.render(migrate.parse(text.encode(), "c", "toml"), "toml")
    assert tomllib.loads(again.decode()) == tomllib.loads(text)
