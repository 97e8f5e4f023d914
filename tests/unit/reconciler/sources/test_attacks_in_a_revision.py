"""Hostile manifests (YAML) as one file of a revision: each has its outcome, and never is any of it read as good."""

import time
from pathlib import PurePosixPath

import pytest

from reconciler.sources.folder import FolderTree
from reconciler.sources.loading import Loaded, load_tree
from reconciler.sources.revisions import Entry
from reconciler.sources.substitution import Variables

HEAD = "apiVersion: reconciler/v1\nkind: Volume\nmetadata: {name: v}\n"
WEB = (
    HEAD.replace("Volume", "Container").replace("name: v", "name: web")
    + "spec:\n  image: web\n  network: {mode: none}\n"
)
LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 30))
ATTACKS: dict[str, tuple[str | bytes, str]] = {
    "billion laughs": (LAUGHS, "bad.yaml:1:"),
    "a python object": (HEAD + "spec: !!python/object/apply:os.system [touch /tmp/pwn]\n", "bad.yaml:4:7"),
    "a duplicate key": (HEAD + "spec: {retain: true, retain: false}\n", "bad.yaml:4:"),
    "a version that is a number": (WEB + "  env: [{name: V, value: 1.10}]\n", "1.10"),
    "yes where text is due": (WEB + "  env: [{name: V, value: yes}]\n", "yes"),
    "an octal port": (WEB + "  resources: {pids: 0o17}\n", "0o17"),
    "a time to base 60": (WEB + "  env:\n    - name: V\n      value: 12:30:45\n", "12:30:45"),
    "a million brackets": ("[" * 1_000_000, "bad.yaml:1:"),
    "thirty thousand brackets": ("[" * 30_000, "bad.yaml:1:"),
    "NUL": (HEAD.encode() + b"spec: {a: \0}\n", "bad.yaml:4:"),
    "UTF-16": (HEAD.encode("utf-16"), "UTF-16"),
    "a tab as indentation": (HEAD + "spec:\n\tretain: true\n", "bad.yaml:5:"),
    "two mebibytes": ("# " + "x" * (2 << 20), "larger than 1 MiB"),
    "an anchor of another document": ("a: &x 1\n---\nb: *x\n", "bad.yaml:1:"),
    "an unknown field": (HEAD + "spec: {ratain: true}\n", "did you mean retain?"),
    "an object of another file": (HEAD.replace("name: v", "name: good"), "volume/good is defined in "),
    "a merge key": (HEAD + "spec: {<<: {retain: true}}\n", "bad.yaml:4:"),
    "an integer over 64 bits": (WEB + "  resources: {pids: 9223372036854775808}\n", "does not fit into 64 bits"),
    "infinity": (WEB + "  resources: {pids: .inf}\n", "is not a finite number"),
    "no number": (WEB + "  resources: {pids: .nan}\n", "is not a finite number"),
    "a negative size": (WEB + '  resources: {memory: "-1Mi"}\n', "is not an amount of bytes"),
    "a negative number": (WEB + "  resources: {pids: -1}\n", "is too small"),
    "a name that climbs": (HEAD.replace("name: v", "name: ../../x"), "is not a name"),
    "a name of 300 letters": (HEAD.replace("name: v", f"name: {'x' * 300}"), "is not a name"),
    "a name in capitals": (HEAD.replace("name: v", "name: Web"), "is not a name"),
}


def loaded(bad: str | bytes) -> Loaded:
    """A revision of a good file and that one."""
    files = {
        "bad.yaml": bad if isinstance(bad, bytes) else bad.encode(),
        "good.yaml": HEAD.replace("v}", "good}").encode(),
    }
    entries = {path: Entry(path, path, len(data), "file") for path, data in files.items()}
    entries |= {str(one): Entry(str(one), "", 0, "folder") for path in files for one in PurePosixPath(path).parents}
    return load_tree(FolderTree("", entries, files), "", Variables("node"))


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_a_fault_with_its_place_and_what_is_meant(name: str) -> None:
    bad, words = ATTACKS[name]
    began = time.perf_counter()
    found = loaded(bad)
    assert time.perf_counter() - began < 2.0
    assert [one.key.name for one in found.manifests if one.origin.file == "bad.yaml"] == [] or words.startswith(
        "volume/"
    )
    faults = [str(fault) for fault in found.faults]
    assert any(words in fault for fault in faults), faults
    assert all(fault.startswith(("bad.yaml", "good.yaml")) for fault in faults)


@pytest.mark.parametrize(
    "good",
    [
        HEAD.replace("\n", "\r\n"),
        "\ufeff" + HEAD,
        "---\n" * 10_000,
        HEAD + "spec: {retain: true}\n---\n---\n",
    ],
    ids=["CRLF", "a byte order mark", "ten thousand documents of nothing", "empty documents"],
)
def test_what_only_looks_odd_is_taken(good: str) -> None:
    assert loaded(good).faults == ()
