"""A file is read once for the same bytes, name and variables; what depends on more is read every time."""

from pathlib import Path

import pytest

from reconciler.sources import parsed
from reconciler.sources.files import ManifestFile
from reconciler.sources.parsed import Parsed, blob_id, read_file
from reconciler.sources.substitution import Variables
from tests.git_server import git

VOLUME = b"apiVersion: reconciler/v1\nkind: Volume\nmetadata: {name: data, labels: {site: '${node.name}'}}\nspec: {}\n"
FILE = ManifestFile("data.yaml", VOLUME, ".", "data.yaml")
HERE = Variables("here")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were really read."""
    names: list[str] = []

    def counted(source: ManifestFile, variables: Variables) -> parsed.FileReading:
        names.append(source.shown)
        return read_file(source, variables)

    monkeypatch.setattr(parsed, "read_file", counted)
    return names


def changed(**fields: object) -> ManifestFile:
    """FILE with other fields."""
    return ManifestFile(**{**{name: getattr(FILE, name) for name in ("shown", "data", "base", "inside")}, **fields})  # type: ignore[arg-type]  # of the test


def test_the_same_file_is_read_once_and_comes_back_equal(reads: list[str]) -> None:
    memory = Parsed()
    first, second = memory.read(FILE, HERE), memory.read(FILE, HERE)
    assert first.readings[0][1].manifest == second.readings[0][1].manifest
    assert first.readings[0][0] == second.readings[0][0]
    assert reads == ["data.yaml"]


def test_a_fault_found_later_has_its_place_also_in_what_was_remembered() -> None:
    memory = Parsed()
    memory.read(FILE, HERE)
    manifest = memory.read(FILE, HERE).readings[0][1].manifest
    assert manifest is not None
    assert str(manifest.fault(("metadata", "labels"), "x")).startswith("data.yaml:3:")


def test_what_comes_back_may_be_changed_without_harm() -> None:
    memory = Parsed()
    for _ in range(3):
        manifest = memory.read(FILE, HERE).readings[0][1].manifest
        assert manifest is not None
        assert manifest.labels == {"site": "here"}
        manifest.labels["site"] = "changed"  # type: ignore[index]  # it is a dict


@pytest.mark.parametrize(
    ("file", "variables"),
    [
        (changed(data=VOLUME + b"# \n"), HERE),
        (changed(shown="other.yaml"), HERE),
        (changed(inside="a/data.yaml"), HERE),
        (FILE, Variables("there")),
        (FILE, Variables("here", {"site": "a"})),
        (FILE, Variables("here", {}, {"site": "a"})),
    ],
)
def test_other_bytes_names_or_variables_are_read_anew(
    file: ManifestFile, variables: Variables, reads: list[str]
) -> None:
    memory = Parsed()
    memory.read(FILE, HERE)
    memory.read(file, variables)
    assert len(reads) == 2


def test_what_is_wrong_is_not_remembered(reads: list[str]) -> None:
    memory = Parsed()
    for bad in (b"kind: [", b"kind: Volume\n", VOLUME + b"---\nkind: None\n"):
        file = changed(data=bad)
        memory.read(file, HERE)
        memory.read(file, HERE)
    assert len(reads) == 6


def test_what_takes_in_another_file_is_read_every_time(tmp_path: Path, reads: list[str]) -> None:
    text = (
        b"apiVersion: reconciler/v1\nkind: Container\nmetadata: {name: c}\nspec:\n  image: web\n"
        b"  network: {mode: host}\n  mounts: [{path: /etc/app.conf, file: app.conf}]\n"
    )
    file = ManifestFile("c.yaml", text, str(tmp_path), "c.yaml")
    memory = Parsed()
    contents = set()
    for content in ("one", "two"):
        (tmp_path / "app.conf").write_text(content)
        manifest = memory.read(file, HERE).readings[0][1].manifest
        assert manifest is not None
        contents.add(manifest.spec["mounts"][0]["fileContent"])
    assert len(contents) == 2
    assert len(reads) == 2


def test_no_more_is_kept_than_the_limit_and_the_oldest_goes_first(reads: list[str]) -> None:
    one = len(parsed.pickle.dumps(read_file(FILE, HERE), 5))
    memory = Parsed(most=3 * one + 100)
    files = [changed(shown=f"{i}.yaml") for i in range(4)]
    for file in files:
        memory.read(file, HERE)
    reads.clear()
    memory.read(files[3], HERE)
    assert reads == []
    memory.read(files[0], HERE)
    assert reads == ["0.yaml"]


def test_the_id_of_bytes_is_the_one_that_git_gives_them() -> None:
    for data in (b"", VOLUME, b"\0" * 70_000):
        assert blob_id(data) == git("hash-object", "--stdin", stdin=data)
