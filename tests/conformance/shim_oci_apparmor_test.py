"""What a profile of AppArmor denies a task is denied to it, and to what is run in it, under the real runtimes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import AgentError, Invalid
from core.process import Launcher
from core.runtime.apparmor import AppArmor
from core.runtime.node import loaded_profiles
from core.runtime.ports import ExecSpec
from core.runtime.spec import Security
from tests.apparmor import PROFILE, loaded, needed
from tests.conformance.shim_contract import running, said
from tests.conformance.shim_ground import OciGround, make_root, skip_unless_possible
from tests.runtimes import RUNTIMES

pytestmark = pytest.mark.root

_LABEL = "cat /proc/self/attr/current"
_TRIES = f"{_LABEL}; cat /etc/passwd | head -n 1; cat /etc/hidden; echo x >/data/x; echo y >/tmp/y && cat /tmp/y"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_unless_possible()
    folder = make_root(tmp_path_factory.mktemp("root"))
    (folder / "etc/hidden").write_text("secret\n")
    return folder


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    needed()
    with loaded(tmp_path_factory.mktemp("profile")) as name:
        yield name


@pytest.fixture(params=RUNTIMES)
def ground(tmp_path: Path, root: Path, request: pytest.FixtureRequest) -> Iterator[OciGround]:
    ground = OciGround(tmp_path, root, request.param)
    yield ground
    ground.end()


def test_a_profile_denies_what_it_says_and_nothing_else(ground: OciGround, profile: str) -> None:
    text = said(ground, "sh", "-c", f'said=$( ({_TRIES}) 2>&1); echo "$said"', security=Security(apparmor=profile))
    assert text.splitlines() == [
        f"{profile} (enforce)",
        "root:x:0:0::/:/bin/sh",
        "cat: can't open '/etc/hidden': Permission denied",
        "sh: can't create /data/x: Permission denied",
        "y",
    ]


def test_without_a_profile_the_same_is_allowed(ground: OciGround, profile: str) -> None:
    text = said(ground, "sh", "-c", "cat /etc/hidden; echo x >/data/x && rm /data/x && echo written")
    assert text.splitlines() == ["secret", "written"]


def test_a_further_process_is_confined_as_the_first_one_is(ground: OciGround, profile: str) -> None:
    shim = running(ground, security=Security(apparmor=profile))
    assert shim.exec("one", ExecSpec(["sh", "-c", f'test "$({_LABEL})" = "{profile} (enforce)"'])) == 0
    assert shim.exec("one", ExecSpec(["cat", "/etc/passwd"])) == 0
    assert shim.exec("one", ExecSpec(["cat", "/etc/hidden"])) == 1
    code, told = shim.ask("one", ["sh", "-c", "cat /etc/hidden"], 20)
    assert code == 1
    assert "Permission denied" in told


def test_unconfined_and_privileged_are_confined_by_none(ground: OciGround, profile: str) -> None:
    for security in (Security(apparmor="unconfined"), Security(apparmor=profile, privileged=True)):
        assert said(ground, "sh", "-c", f"{_LABEL}; cat /etc/hidden", security=security) == "unconfined\nsecret"


def test_a_profile_that_is_not_loaded_starts_nothing(ground: OciGround, profile: str) -> None:
    ground.shim.prepare(ground.task("true", security=Security(apparmor="no-such-profile")))
    with pytest.raises(AgentError, match=r"(?i)apparmor|attr/exec"):
        ground.shim.create("one")


def test_a_profile_that_comes_as_a_text_has_a_name_of_ours_confines_and_goes_with_its_task(ground: OciGround) -> None:
    needed()
    profiles = AppArmor(Launcher(), ground.group.rpartition("-")[2], ground.state / "bundles")
    text = PROFILE.format(name="strict").encode()
    name = profiles.load(text, "it")
    assert name == profiles.load(text, "it")
    shim = running(ground, security=Security(apparmor=name))
    code, told = shim.ask("one", ["sh", "-c", "cat /etc/hidden"], 20)
    assert (code, "Permission denied" in told) == (1, True)
    for _ in range(2):
        profiles.collect()
        assert name in (loaded_profiles() or ())
    shim.delete("one")
    profiles.collect()
    assert name not in (loaded_profiles() or ())


def test_a_text_that_the_parser_refuses_is_told_with_its_words(ground: OciGround) -> None:
    needed()
    with pytest.raises(Invalid, match="strict: "):
        AppArmor(Launcher(), "test", ground.state / "bundles").load(b"profile a { no such rule }", "strict")
