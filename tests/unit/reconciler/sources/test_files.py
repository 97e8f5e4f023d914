"""Which files are read, and that nothing outside the folder given is."""

from __future__ import annotations

import base64
import io
import os
import sys
from pathlib import Path

import pytest

from reconciler.sources.loading import Loaded, load
from reconciler.sources.substitution import Variables

VARIABLES = Variables("edge-1")


def volume(name: str) -> str:
    return f"apiVersion: reconciler/v1\nkind: Volume\nmetadata: {{name: {name}}}\n"


def with_file(path: str) -> str:
    return (
        "apiVersion: reconciler/v1\nkind: Container\nmetadata: {name: web}\nspec:\n  image: web\n"
        f"  network: {{mode: none}}\n  mounts:\n    - path: /etc/app.conf\n      file: {path}\n"
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("outside")
    inside = tmp_path / "demo"
    inside.mkdir()
    return inside


def names(found: Loaded) -> list[str]:
    return [manifest.key.name for manifest in found.manifests]


def faults(*paths: str) -> list[str]:
    return [str(fault) for fault in load(paths, VARIABLES).faults]


def test_a_folder_is_read_recursively_in_order_of_names(folder: Path) -> None:
    (folder / "b").mkdir()
    for name in ("c.json", "a.yaml", "b/z.yml", "b/a.yaml", "notes.txt", ".hidden.yaml", "_draft.yaml"):
        text = '{"apiVersion": "reconciler/v1", "kind": "Volume", "metadata": {"name": "c"}}'
        stem = name.split(".")[0].replace("/", "-")
        (folder / name).write_text(text if name == "c.json" else volume(stem or "hidden"))
    for hidden in (".git", "_old"):
        (folder / hidden).mkdir()
        (folder / hidden / "x.yaml").write_text(volume("never"))
    found = load(["demo"], VARIABLES)
    assert found.faults == ()
    assert names(found) == ["a", "b-a", "b-z", "c"]
    assert str(found.manifests[1].origin) == "demo/b/a.yaml:1"


def test_a_file_given_by_name_is_read_whatever_its_name(folder: Path) -> None:
    (folder / "_draft.txt").write_text(volume("draft"))
    assert names(load(["demo/_draft.txt"], VARIABLES)) == ["draft"]
    assert names(load([str(folder / "_draft.txt")], VARIABLES)) == ["draft"]


def test_a_file_given_twice_is_read_once(folder: Path) -> None:
    (folder / "a.yaml").write_text(volume("a"))
    assert names(load(["demo/a.yaml", "demo", "demo/a.yaml", "./demo"], VARIABLES)) == ["a"]


def test_dash_is_stdin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(volume("a").encode())))
    found = load(["-", "-"], VARIABLES)
    assert names(found) == ["a"]
    assert str(found.manifests[0].origin) == "<stdin>:1"


def test_stdin_names_no_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(with_file("app.conf").encode())))
    assert faults("-") == [
        (
            "<stdin>:9:13: spec.mounts[0].file: app.conf names a file, but stdin lies in no folder; "
            "give the manifest with -f FILE"
        )
    ]


def test_a_path_that_is_not_there_and_a_folder_without_manifests_are_faults(folder: Path) -> None:
    (folder / "_only.yaml").write_text(volume("a"))
    assert faults("nope", "demo", "nul\0") == [
        "nope: does not exist; check the path",
        "demo: holds no manifest file; put files in it that end in .yaml, .yml, .json",
        "nul\0: cannot be read: embedded null byte; check the path and its permissions",
    ]


def test_a_link_that_leaves_the_folder_is_refused(folder: Path) -> None:
    (folder / "a.yaml").symlink_to("../secret.txt")
    (folder / "b.yaml").symlink_to("/etc/passwd")
    (folder / "c.yaml").symlink_to("c.yaml")
    (folder / "d.yaml").symlink_to("gone")
    assert faults("demo") == [
        "demo/a.yaml: leads out of the folder given; keep what manifests name inside their folder",
        "demo/b.yaml: leads out of the folder given; keep what manifests name inside their folder",
        "demo/c.yaml: is a link that leads nowhere; replace the link by the file",
        "demo/d.yaml: does not exist; check the path; it is relative to this file",
    ]


def test_a_link_inside_the_folder_is_followed(folder: Path) -> None:
    (folder / ".data").mkdir()
    (folder / ".data" / "a.yaml").write_text(volume("a"))
    (folder / "a.yaml").symlink_to(".data/a.yaml")
    assert names(load(["demo"], VARIABLES)) == ["a"]


def test_a_link_to_a_folder_is_refused_and_makes_no_circle(folder: Path) -> None:
    (folder / "a.yaml").write_text(volume("a"))
    (folder / "again").symlink_to(".")
    assert faults("demo") == ["demo/again: is a link to a folder, which is not followed; give that folder too"]


def test_special_files_are_refused_without_waiting_for_them(folder: Path) -> None:
    os.mkfifo(folder / "a.yaml")
    expected = "is not a regular file; give a regular file, or its content on stdin (-f -)"
    assert faults("demo", "demo/a.yaml", "/dev/zero") == [
        f"demo/a.yaml: {expected}", f"demo/a.yaml: {expected}", f"/dev/zero: {expected}",
    ]  # fmt: skip


def test_a_large_file_is_refused_without_being_read_whole(folder: Path) -> None:
    with open(folder / "a.yaml", "wb") as large:
        large.truncate(50 << 30)
    assert faults("demo") == ["demo/a.yaml: is larger than 1 MiB; split it into several files"]


def test_a_file_mount_takes_its_content_along(folder: Path) -> None:
    (folder / "edge").mkdir()
    (folder / "edge" / "web.yaml").write_text(with_file("config/app.conf"))
    (folder / "edge" / "config").mkdir()
    (folder / "edge" / "config" / "app.conf").write_bytes(b"\0binary\xff")
    for given in ("demo", "demo/edge/web.yaml"):
        found = load([given], VARIABLES)
        assert found.faults == ()
        (mount,) = found.manifests[0].spec["mounts"]
        assert mount["file"] == "config/app.conf"
        assert base64.b64decode(mount["fileContent"]) == b"\0binary\xff"


def test_a_file_mount_may_climb_inside_the_folder_given_but_not_out_of_it(folder: Path) -> None:
    (folder / "edge").mkdir()
    (folder / "edge" / "web.yaml").write_text(with_file("../shared.conf"))
    (folder / "shared.conf").write_text("x")
    assert faults("demo") == []
    refused = "leads out of the folder given; keep what manifests name inside their folder"
    assert faults("demo/edge") == [f"demo/edge/web.yaml:9:13: spec.mounts[0].file: ../shared.conf {refused}"]


@pytest.mark.parametrize("path", ["../secret.txt", "link", "folder/../../secret.txt", "deep/link/secret.txt"])
def test_a_file_mount_leads_nowhere_outside(folder: Path, path: str) -> None:
    (folder / "web.yaml").write_text(with_file(path))
    (folder / "link").symlink_to("../secret.txt")
    (folder / "folder").mkdir()
    (folder / "deep").mkdir()
    (folder / "deep" / "link").symlink_to(folder.parent)
    (fault,) = faults("demo/web.yaml")
    assert fault.startswith(f"demo/web.yaml:9:13: spec.mounts[0].file: {path} leads out of the folder given")


def test_a_file_mount_of_nothing_a_folder_or_too_much_is_refused(folder: Path) -> None:
    (folder / "large").write_bytes(b"x" * ((1 << 20) + 1))
    (folder / "sub").mkdir()
    for path, words in (("nope", "does not exist"), ("sub", "not a regular file"), ("large", "larger than 1 MiB")):
        (folder / "web.yaml").write_text(with_file(path))
        (fault,) = faults("demo")
        assert words in fault


def test_a_person_may_not_write_the_content_of_a_file_mount(folder: Path) -> None:
    (folder / "web.yaml").write_text(with_file("app.conf") + "      fileContent: aGk=\n")
    assert faults("demo") == [
        "demo/web.yaml:10:7: spec.mounts[0].fileContent: is written by the agent; give the content by file: PATH"
    ]


def with_profile(path: str, more: str = "") -> str:
    return (
        "apiVersion: reconciler/v1\nkind: Container\nmetadata: {name: web}\nspec:\n  image: busybox:1\n"
        f"  security:\n    seccomp: {path}\n{more}"
    )


PROFILE = b'{"defaultAction": "SCMP_ACT_ALLOW"}'


def test_a_seccomp_profile_beside_a_manifest_is_taken_along(folder: Path) -> None:
    (folder / "edge" / "_profiles").mkdir(parents=True)
    (folder / "edge" / "_profiles" / "strict.json").write_bytes(PROFILE)
    (folder / "_strict.json").write_bytes(PROFILE)
    for path in ("_profiles/strict.json", "./_profiles/strict.json", "../_strict.json"):
        (folder / "edge" / "web.yaml").write_text(with_profile(path))
        found = load(["demo"], VARIABLES)
        assert found.faults == ()
        security = found.manifests[0].spec["security"]
        assert security["seccomp"] == path
        assert base64.b64decode(security["seccompContent"]) == PROFILE
    (folder / "edge" / "web.yaml").write_text(with_profile("_strict.json"))
    (folder / "edge" / "_strict.json").write_bytes(PROFILE)
    assert load(["demo"], VARIABLES).manifests[0].spec["security"]["seccomp"] == "_strict.json"


@pytest.mark.parametrize("path", ["default", "unconfined", "/etc/strict.json"])
def test_other_profiles_take_nothing_along(folder: Path, path: str) -> None:
    (folder / "web.yaml").write_text(with_profile(path))
    found = load(["demo"], VARIABLES)
    assert found.manifests[0].spec["security"] == {"seccomp": path}


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("./nope.json", None, "./nope.json does not exist; check the path; it is relative to this file"),
        ("../../secret.txt", None, "../../secret.txt leads out of the folder given"),
        ("_broken.json", b"{", "_broken.json: not JSON: "),
        ("_list.json", b"[]", "_list.json: not a seccomp profile; Write a JSON object with"),
        ("_docker.json", b'{"defaultAction": "SCMP_ACT_ALLOW", "archMap": []}', "_docker.json: unknown keys archMap"),
        ("_large.json", b" " * ((1 << 20) + 1), "_large.json is larger than 1 MiB"),
        ("strict", None, "strict is not known here; write default, unconfined, or the path of a profile"),
    ],
)
def test_a_seccomp_profile_that_is_none_is_a_fault_at_its_place(
    folder: Path, path: str, content: bytes | None, words: str
) -> None:
    (folder / "web.yaml").write_text(with_profile(path))
    if content is not None:
        (folder / path).write_bytes(content)
    (fault,) = faults("demo")
    assert fault.startswith(f"demo/web.yaml:7:14: spec.security.seccomp: {words}")


def with_apparmor(word: str) -> str:
    return with_profile("default", f"    apparmor: {word}\n")


def test_an_apparmor_profile_beside_a_manifest_is_taken_along(folder: Path) -> None:
    (folder / "strict").write_text("profile strict {\n  file,\n}\n")
    (folder / "web.yaml").write_text(with_apparmor("./strict"))
    security = load(["demo"], VARIABLES).manifests[0].spec["security"]
    assert base64.b64decode(security["apparmorContent"]) == (folder / "strict").read_bytes()
    for word in ("strict", "/etc/apparmor.d/strict", "unconfined", "snap.web//inner"):
        (folder / "web.yaml").write_text(with_apparmor(word))
        assert load(["demo"], VARIABLES).manifests[0].spec["security"] == {"seccomp": "default", "apparmor": word}


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("./nope", None, "./nope does not exist; check the path; it is relative to this file"),
        ("./two", "profile a {}\nprofile b {}", "./two is not one profile with a name; Write one `profile NAME"),
        ("./sshd", "profile a /usr/sbin/sshd {}", "./sshd is not one profile with a name"),
        ("./shadow", 'profile a { #include "/etc/shadow"\n}', "./shadow includes '\"/etc/shadow\"'"),
    ],
)
def test_an_apparmor_profile_that_is_none_is_a_fault_at_its_place(
    folder: Path, path: str, content: str | None, words: str
) -> None:
    (folder / "web.yaml").write_text(with_apparmor(path))
    if content is not None:
        (folder / path).write_text(content)
    (fault,) = faults("demo")
    assert fault.startswith(f"demo/web.yaml:8:15: spec.security.apparmor: {words}")


def test_a_person_may_not_write_the_content_of_a_profile(folder: Path) -> None:
    (folder / "web.yaml").write_text(with_profile("default", "    seccompContent: aGk=\n"))
    advice = "is written by the agent; give the profile by seccomp: PATH"
    assert faults("demo") == [f"demo/web.yaml:8:5: spec.security.seccompContent: {advice}"]


def with_archive(path: str) -> str:
    return f"apiVersion: reconciler/v1\nkind: Image\nmetadata: {{name: web}}\nspec:\n  ref: web:1\n  archive: {path}\n"


def test_an_archive_beside_a_manifest_is_named_by_its_whole_path(folder: Path) -> None:
    (folder / "edge" / "images").mkdir(parents=True)
    (folder / "edge" / "images" / "web.tar").write_bytes(b"")
    (folder / "edge" / "web.yaml").write_text(with_archive("images/web.tar"))
    for given in ("demo", "demo/edge/web.yaml"):
        found = load([given], VARIABLES)
        assert found.faults == ()
        assert found.manifests[0].spec["archive"] == str(folder.resolve() / "edge/images/web.tar")
    (folder / "edge" / "web.yaml").write_text(with_archive("/srv/web.tar"))
    assert load(["demo"], VARIABLES).manifests[0].spec["archive"] == "/srv/web.tar"


def test_an_archive_leads_nowhere_outside_and_is_there(folder: Path) -> None:
    for path, words in (("../secret.txt", "leads out of the folder given"), ("nope.tar", "does not exist")):
        (folder / "web.yaml").write_text(with_archive(path))
        (fault,) = faults("demo")
        assert fault.startswith(f"demo/web.yaml:6:12: spec.archive: {path} {words}")
