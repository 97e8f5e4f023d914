"""Files that import others: each brought on by its own version, then laid one over the other as containerd does."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatch
from typing import Any

import pytest

from migrations.config import imports, migrate
from migrations.config.tree import BadDocument
from migrations.config.work import Outcome, Settings
from tests.migrating import CRI, IMAGES, RUNTIME, Moved


class Tree(dict[str, str]):
    """Files by path."""

    def read(self, path: str) -> bytes:
        if path not in self:
            raise FileNotFoundError(path)
        return self[path].encode()

    def matching(self, pattern: str) -> list[str]:
        return sorted(path for path in self if fnmatch(path, pattern))


def joined(target: int, **files: str) -> Moved:
    tree = Tree({f"/etc/{name}.toml": text for name, text in files.items()})
    documents = imports.read_all("/etc/main.toml", tree, Settings("/out"))
    return Moved(migrate.finished(imports.join_all(documents, target), f"version {target}"))


def values(target: int = 2, **files: str) -> dict[str, Any]:
    found = joined(target, **files).values
    found.pop("version")
    return found


MAIN = 'version = 2\nimports = ["other.toml"]\n'


def test_a_main_file_of_version_2_beside_a_drop_in_of_version_3_loses_nothing() -> None:
    moved = joined(
        3,
        main=f'version = 2\nimports = ["nv*.toml"]\n[{CRI}.registry.mirrors.a]\nendpoint = ["https://m"]\n',
        nvidia=f'version = 3\n[plugins."{RUNTIME}".containerd]\ndefault_runtime_name = "nvidia"\n',
    )
    assert list(moved.result.files) == ["certs.d/a/hosts.toml"]
    assert moved.plugins == {
        IMAGES: {"registry": {"config_path": "/out/certs.d"}},
        RUNTIME: {"containerd": {"default_runtime_name": "nvidia"}},
    }


def test_plugins_are_joined_key_by_key_and_lists_in_them_replaced() -> None:
    one = f'[{CRI}]\nenable_selinux = true\n[{CRI}.cni]\nconf_dir = "/a"\n[plugins."a.b.c.d"]\nl = [1, 2]\n'
    other = f'version = 2\n[{CRI}]\nenable_selinux = false\n[{CRI}.cni]\nbin_dir = "/b"\n[plugins."a.b.c.d"]\nl = [3]\n'
    assert values(main=MAIN + one, other=other)["plugins"] == {
        "io.containerd.grpc.v1.cri": {"enable_selinux": False, "cni": {"conf_dir": "/a", "bin_dir": "/b"}},
        "a.b.c.d": {"l": [3]},
    }


def test_lists_are_united_in_their_order() -> None:
    main = MAIN + 'disabled_plugins = ["io.a.v1.b", "io.a.v1.c"]\n'
    other = 'version = 2\ndisabled_plugins = ["io.a.v1.c", "io.a.v1.d"]\n'
    assert values(main=main, other=other)["disabled_plugins"] == ["io.a.v1.b", "io.a.v1.c", "io.a.v1.d"]


def test_an_import_changes_a_value_but_cannot_set_it_back_to_nothing() -> None:
    main = MAIN + 'root = "/a"\noom_score = 5\n[debug]\nlevel = "info"\naddress = "/d"\n'
    moved = joined(2, main=main, other='version = 2\nroot = "/b"\noom_score = 0\n[debug]\nlevel = ""\nuid = 3\n')
    assert moved.values == {
        "version": 2,
        "root": "/b",
        "oom_score": 5,
        "debug": {"level": "info", "address": "/d", "uid": 3},
    }
    first, second = [entry for entry in moved.result.entries if entry.key == "root"]
    assert (first.outcome, second.outcome) == (Outcome.INERT, Outcome.MOVED)
    assert "other.toml:2" in first.why


@pytest.mark.parametrize("section", ["proxy_plugins", "stream_processors"])
def test_named_tables_are_replaced_as_a_whole(section: str) -> None:
    key = "address" if section == "proxy_plugins" else "path"
    main = MAIN + f'[{section}.a]\n{key} = "/a"\n[{section}.b]\n{key} = "/b"\n'
    other = f'version = 2\n[{section}.a]\n{"type" if key == "address" else "returns"} = "x"\n'
    kept = {"type": "x"} if key == "address" else {"returns": "x"}
    assert values(main=main, other=other)[section] == {"b": {key: "/b"}, "a": kept}


def test_every_key_of_every_file_is_told_with_its_file_and_comments_stay() -> None:
    moved = joined(3, main=MAIN + 'root = "/a" # one\n', other='# two\nversion = 2\n# three\nstate = "/s"\n')
    assert {(entry.file, entry.key) for entry in moved.result.entries} == {
        ("/etc/main.toml", "version"),
        ("/etc/main.toml", "imports"),
        ("/etc/main.toml", "root"),
        ("/etc/other.toml", "version"),
        ("/etc/other.toml", "state"),
    }
    assert all(f"# {word}" in moved.text for word in ("one", "two", "three"))
    assert "imports" not in moved.values


def test_an_import_of_itself_is_an_error_with_its_place() -> None:
    with pytest.raises(BadDocument, match=r"/etc/other\.toml:2:1: imports imports /etc/main\.toml"):
        joined(2, main=MAIN, other='version = 2\nimports = ["main.toml"]\n')


def test_a_missing_import_is_an_error_with_its_place_and_a_pattern_may_match_nothing() -> None:
    with pytest.raises(BadDocument, match=r"/etc/main\.toml:2:1: imports names /etc/other\.toml, which is not there"):
        joined(2, main=MAIN)
    assert values(main='version = 2\nimports = ["none/*.toml"]\nroot = "/r"\n') == {
        "root": "/r",
        "imports": ["none/*.toml"],
    }


def test_a_file_that_two_files_import_is_read_once() -> None:
    text = 'version = 2\nimports = ["third.toml"]\n'
    moved = joined(2, main=MAIN.replace("]", ', "third.toml"]'), other=text, third='version = 2\nroot = "/r"\n')
    assert [entry.key for entry in moved.result.entries].count("root") == 1


def test_mirrors_of_two_files_for_one_registry_are_one_hosts_toml() -> None:
    def mirror(url: str) -> str:
        return f'[{CRI}.registry.mirrors.a]\nendpoint = ["{url}"]\n'

    moved = joined(3, main=MAIN + mirror("https://one"), other="version = 2\n" + mirror("https://two"))
    assert list(tomllib.loads(moved.file("certs.d/a/hosts.toml"))["host"]) == ["https://one", "https://two"]
