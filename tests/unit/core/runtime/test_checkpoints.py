"""The folder of a checkpoint: what is written is taken in; what is not right, or another's, is refused in words."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.digest import Digest
from core.errors import AgentError, Corrupt, Denied, Invalid, NotFound, OverLimit
from core.runtime import checkpoints
from core.runtime.checkpoints import About, Piece, held, making, read_about, seal, take_in
from reconciler.decide.attempts import Attempt
from reconciler.decide.likeness import differences

LAYER = b"a layer"
RUNTIME = {"name": "runc", "driver": "oci", "path": "/usr/sbin/runc", "options": {}, "version": "1.1.5"}
ABOUT = About("web", "sha256:aa", "11111111", {"command": ["a"]}, RUNTIME, 1.0, Piece(len(LAYER), Digest.of(LAYER)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of two files of state."""
    place = tmp_path / "outside"
    with making(place) as work:
        for name in ("core-1.img", "pages-1.img"):
            (work / "state" / name).write_bytes(name.encode() * 1000)
        (work / "layer.tar").write_bytes(LAYER)
        (work / "layer.tar").chmod(0o600)
        seal(work, ABOUT)
        os.rename(work, place)
    return place


def taken(folder: Path) -> About:
    """Taken in beside it."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    return take_in(folder, home / "web-1")


def test_what_was_written_is_taken_in_whole(folder: Path) -> None:
    about = taken(folder)
    assert about == read_about(folder) == held(folder.parent / "home/web-1")
    assert replace(about, state={}) == ABOUT
    copied = folder.parent / "home/web-1"
    assert {path.name for path in (copied / "state").iterdir()} == {"core-1.img", "pages-1.img"}
    assert {path.stat().st_mode & 0o777 for path in copied.rglob("*") if path.is_file()} == {0o600}
    assert (copied.stat().st_mode & 0o777, (copied / "state").stat().st_mode & 0o777) == (0o700, 0o700)


def test_what_a_killed_command_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / ".staging-checkpoint-0123456789ab"
    left.mkdir()
    (left / "secret").write_text("x")
    with making(tmp_path / "new"):
        assert not left.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_made_only_where_none_is_and_its_parent_is_one(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="already"), making(tmp_path):
        pass
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(Invalid, match="already"), making(tmp_path / "link"):
        pass
    with pytest.raises(NotFound), making(tmp_path / "none/new"):
        pass


def test_a_runtime_that_writes_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    with making(tmp_path / "new") as work:
        (work / "state/link").symlink_to("/etc/passwd")
        with pytest.raises(Invalid, match="no plain file"):
            seal(work, ABOUT)
    assert list(tmp_path.iterdir()) == []


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    about = json.loads((folder / "about.json").read_text())
    change(about)
    (folder / "about.json").write_text(json.dumps(about))


def lead_out(about: dict[str, Any]) -> None:
    about["state"]["../../etc/passwd"] = about["state"].pop("core-1.img")


def hide(about: dict[str, Any]) -> None:
    about["state"][".."] = about["state"].pop("core-1.img")


def link(folder: Path) -> None:
    (folder / "state/core-1.img").rename(folder / "elsewhere")
    (folder / "state/core-1.img").symlink_to(folder / "elsewhere")


def link_all(folder: Path) -> None:
    folder.rename(folder.with_name("real"))
    folder.symlink_to(folder.with_name("real"))


def a_fifo(folder: Path) -> None:
    (folder / "state/core-1.img").unlink()
    os.mkfifo(folder / "state/core-1.img", 0o600)


def other_bytes(folder: Path) -> None:
    data = bytearray((folder / "state/pages-1.img").read_bytes())
    data[77] ^= 1
    (folder / "state/pages-1.img").write_bytes(data)


SPOILT: list[tuple[Callable[[Path], object], type[AgentError], str]] = [
    (lambda f: edited(f, lead_out), Invalid, "no plain name"),
    (lambda f: edited(f, hide), Invalid, "no plain name"),
    (lambda f: edited(f, lambda a: a.update(format=2)), Invalid, "no checkpoint that this version knows"),
    (lambda f: edited(f, lambda a: a.pop("state")), Invalid, "no state"),
    (lambda f: edited(f, lambda a: a["state"]["core-1.img"].update(size=-1)), Invalid, "without a size"),
    (lambda f: edited(f, lambda a: a["state"]["core-1.img"].update(digest="md5:1")), Invalid, "not a digest"),
    (lambda f: edited(f, lambda a: a["state"].update({"more.img": a["layer"]})), Corrupt, "no file more.img"),
    (lambda f: edited(f, lambda a: a["state"].update(dict.fromkeys(map(str, range(100_001)), a["layer"]))),
     OverLimit, "more than 100000"),
    (lambda f: (f / "about.json").write_text("[" * 100_000), Invalid, "is no JSON"),
    (lambda f: (f / "about.json").write_text("[]"), Invalid, "no checkpoint"),
    (lambda f: (f / "about.json").unlink(), Corrupt, "no file about.json"),
    (lambda f: (f / "layer.tar").unlink(), Corrupt, "no file layer.tar"),
    (lambda f: os.truncate(f / "state/pages-1.img", 10), Corrupt, "10 bytes, not 11000"),
    (other_bytes, Corrupt, "is not what was written"),
    (link, Corrupt, "no file core-1.img"),
    (a_fifo, Invalid, "is no file"),
    (link_all, Denied, "is a link"),
    (lambda f: f.chmod(0o770), Denied, "by another user"),
    (lambda f: (f / "state").chmod(0o702), Denied, "by another user"),
    (lambda f: (f / "state/core-1.img").chmod(0o660), Denied, "by another user"),
    (lambda f: f.rename(f.with_name("gone")), NotFound, "no checkpoint at"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "error", "words"), SPOILT, ids=[words for _, _, words in SPOILT])
def test_what_is_not_right_is_refused_and_leaves_nothing(
    folder: Path, spoil: Callable[[Path], object], error: type[AgentError], words: str
) -> None:
    spoil(folder)
    with pytest.raises(error, match=words):
        taken(folder)
    assert list((folder.parent / "home").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another's files are what is tried")
@pytest.mark.parametrize("path", [".", "about.json", "layer.tar", "state", "state/core-1.img"])
def test_what_belongs_to_another_is_refused(folder: Path, path: str) -> None:
    os.chown(folder / path, 1000, 1000)
    with pytest.raises(Denied, match="another user") as caught:
        taken(folder)
    assert "chown" in caught.value.hint()


def test_one_that_is_gone_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="not here any more"):
        held(tmp_path / "web-1")


def test_a_checkpoint_that_there_is_no_room_for_is_refused_before_it_is_copied(folder: Path) -> None:
    edited(folder, lambda about: about["layer"].update(size=(1 << 50) - 1))
    with pytest.raises(AgentError, match="takes"):
        taken(folder)


def test_files_that_it_does_not_name_are_not_taken_in(folder: Path) -> None:
    (folder / "state/more.img").write_text("x")
    taken(folder)
    assert not (folder.parent / "home/web-1/state/more.img").exists()


# Whether it is one of this container.

ATTEMPT = Attempt(
    3, "11111111", "box", "boot", 1.0, {"command": ["a"], "restart": {"policy": "Never"}}, {"digest": "sha256:aa"}
)
DIFFERENT: list[tuple[dict[str, Any], dict[str, Any], list[str]]] = [
    ({}, {}, []),
    ({"runtime": {**RUNTIME, "path": "/opt/runc", "version": "9"}}, {}, []),
    ({"container": "other"}, {}, ["of container/other"]),
    ({"image": "sha256:bb"}, {}, ["image sha256:bb, the container's is sha256:aa"]),
    ({"spec": {"command": ["b"], "env": []}}, {}, ["another command, env"]),
    ({"hash": "22222222"}, {}, ["a secret"]),
    ({"runtime": {**RUNTIME, "path": "/usr/bin/crun"}}, {}, ["by oci crun, the container runs by oci runc"]),
    ({}, {"hash": "22222222", "spec": {"command": ["c"]}}, ["another command"]),
]


@pytest.mark.parametrize(("about", "attempt", "told"), DIFFERENT)
def test_what_differs_is_said_in_words(about: dict[str, Any], attempt: dict[str, Any], told: list[str]) -> None:
    found = list(differences(replace(ABOUT, **about), "web", replace(ATTEMPT, **attempt), RUNTIME))
    assert len(found) == len(told)
    assert all(words in sentence for words, sentence in zip(told, found, strict=True)), found


def test_a_runtime_that_cannot_be_told_is_no_difference() -> None:
    assert list(differences(ABOUT, "web", ATTEMPT, None)) == []
    assert checkpoints.FORMAT == 1
