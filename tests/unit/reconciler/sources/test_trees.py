"""Manifests that lie in no folder: the files of one revision, and what they may name there."""

from collections.abc import Mapping
from pathlib import PurePosixPath

import pytest

from reconciler.sources.folder import FolderTree
from reconciler.sources.loading import Loaded, load_tree
from reconciler.sources.revisions import Entry
from reconciler.sources.substitution import Variables

VOLUME = "apiVersion: reconciler/v1\nkind: Volume\nmetadata: {name: NAME}\n"
CONTAINER = """apiVersion: reconciler/v1
kind: Container
metadata: {name: web}
spec:
  image: docker.io/library/busybox:1
  network: {mode: none}
  mounts: [{path: /etc/app.conf, file: PATH}]
"""


def loaded(files: Mapping[str, str], inside: str = "") -> Loaded:
    """What the files below `inside` come to."""
    entries = {path: Entry(path, path, len(text), "file") for path, text in files.items()}
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents}
    entries |= {path: Entry(path, "", 0, "folder") for path in folders}
    tree = FolderTree(inside, entries, {path: text.encode() for path, text in files.items()})
    return load_tree(tree, inside, Variables("edge-1", {}, {"name": "data"}))


def volume(name: str) -> str:
    """A whole manifest."""
    return VOLUME.replace("NAME", name)


def test_only_what_lies_below_the_path_is_read_and_in_order_of_names() -> None:
    files = {"edge/b.yaml": volume("b"), "edge/a/z.json": volume("z"), "edges/c.yaml": volume("c"), "x.yaml": "]"}
    found = loaded(files, "edge")
    assert [one.key.name for one in found.manifests] == ["z", "b"]
    assert not found.faults


def test_names_that_begin_with_a_dot_or_a_line_and_other_files_are_left_out() -> None:
    files = dict.fromkeys([".hidden.yaml", "_base/x.yaml", "edge/.git/y.yaml", "readme.md"], "]")
    found = loaded(files)
    assert (found.manifests, found.faults) == ((), ())


def test_a_path_that_is_not_in_the_tree_is_a_fault_and_an_empty_tree_is_none() -> None:
    assert [str(fault) for fault in loaded({"a.yaml": volume("a")}, "nodes/edge").faults] == [
        "nodes/edge: is not there; correct the source's path"
    ]
    assert loaded({}).faults == ()


def test_values_are_put_in() -> None:
    assert loaded({"a.yaml": volume("x").replace("{name: x}", "{name: '${values.name}'}")}).manifests[0].key.name == (
        "data"
    )


@pytest.mark.parametrize(("path", "holds"), [("app.conf", "near"), ("../shared/app.conf", "far")])
def test_a_file_mount_is_read_from_the_same_tree(path: str, holds: str) -> None:
    files = {"edge/app.conf": "near", "shared/app.conf": "far", "edge/web.yaml": CONTAINER.replace("PATH", path)}
    (mount,) = loaded(files, "edge").manifests[0].spec["mounts"]
    assert mount["fileContent"] == {"near": "bmVhcg==", "far": "ZmFy"}[holds]


@pytest.mark.parametrize("path", ["../../etc/passwd", "../../../x", "missing.conf"])
def test_a_file_mount_that_leads_out_of_the_tree_or_nowhere_names_its_line(path: str) -> None:
    (fault,) = loaded({"edge/web.yaml": CONTAINER.replace("PATH", path)}, "edge").faults
    assert str(fault).startswith("edge/web.yaml:7:"), fault
    assert ("leads out of the source" if path.startswith("../..") else "does not exist") in str(fault)
