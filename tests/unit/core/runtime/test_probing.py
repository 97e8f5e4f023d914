"""What runtimes say that they can, how it is remembered, and which versions are warned of."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from core import cgroups, proc
from core.cgroups import Hierarchies
from core.clock import SystemClock
from core.process import Launcher
from core.runtime import criu
from core.runtime.probing import Probe, Prober, abilities, ask_version
from core.runtime.table import RuntimeSpec
from core.runtime.vm.acceleration import DEVICE, Kvm
from core.runtime.vm.installed import INITRD, KERNEL, installed
from tests.runtimes import RUNTIMES, program

NOWHERE = Hierarchies(None, {})
_FEATURES = {
    "ociVersionMin": "1.0.0",
    "linux": {
        "namespaces": ["pid", "user"],
        "cgroup": {"v1": True, "v2": True, "systemd": False},
        "seccomp": {"enabled": True, "actions": []},
        "apparmor": {"enabled": False},
    },
    "annotations": {"org.opencontainers.runc.checkpoint.enabled": "true"},
}


def script(path: Path, version: str, features: str = "exit 1") -> RuntimeSpec:
    """A program that counts its calls beside itself."""
    path.write_text(
        f'#!/bin/sh\necho x >> {path}.calls\ncase "$1" in --version) echo "{version}";; *) {features};; esac\n'
    )
    path.chmod(0o755)
    return RuntimeSpec("it", path=str(path))


def calls(path: Path) -> int:
    counted = Path(f"{path}.calls")
    return len(counted.read_text().splitlines()) if counted.exists() else 0


def prober(cache: Path | None = None, found: Hierarchies = NOWHERE) -> Prober:
    return Prober(Launcher(), found, cache)


def test_features_are_read_from_what_the_oci_says_they_are() -> None:
    assert abilities("runc version 1.2.3", json.dumps(_FEATURES).encode()) == {
        "seccomp": True,
        "apparmor": False,
        "cgroup": ["v1", "v2"],
        "systemd": False,
        "namespaces": ["pid", "user"],
        "checkpoint": True,
    }


def test_crun_tells_its_parts_with_its_version() -> None:
    can = abilities("crun version 1.8.1\n+SYSTEMD +SELINUX +CAP +SECCOMP +EBPF +YAJL\n", b"")
    assert can == {"seccomp": True, "apparmor": False, "selinux": True, "systemd": True, "checkpoint": False}


@pytest.mark.parametrize("features", [b"", b"no json", b"[]", b'{"linux": 1}'[:-1]])
def test_what_is_not_told_is_not_guessed(features: bytes) -> None:
    assert abilities("runsc version 1", features) == {}


@pytest.mark.parametrize(
    ("version", "warned"),
    [
        ("runc version 1.1.5+ds1", ["CVE-2024-21626", "CVE-2024-45310", "CVE-2025-31133"]),
        ("runc version 1.1.12", ["CVE-2024-45310", "CVE-2025-31133"]),
        ("runc version 1.2.8", []),
        ("runc version 1.3.2", ["CVE-2025-31133"]),
        ("runc version 1.3.3", []),
        ("crun version 1.4.3", ["CVE-2022-27650"]),
        ("crun version 1.8.1", []),
        ("other version 0.1.0", []),
    ],
)
def test_versions_with_known_flaws_are_warned_of(tmp_path: Path, version: str, warned: list[str]) -> None:
    found = prober().probe(script(tmp_path / "it", version))
    assert (found.problem, found.version) == ("", version.split()[-1])
    assert len(found.warnings) == len(warned)
    assert all(flaw in warning for flaw, warning in zip(warned, found.warnings, strict=True))


def test_crun_is_warned_of_where_it_would_refuse_the_control_groups(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("hugetlb\n")
    both = Hierarchies(tmp_path, {"pids": tmp_path})
    assert "refuses a node" in prober(found=both).probe(script(tmp_path / "it", "crun version 1.8.1")).warnings[0]
    (tmp_path / "cgroup.controllers").write_text("\n")
    assert prober(found=both).probe(script(tmp_path / "x", "crun version 1.8.1")).warnings == ()


def test_a_program_is_asked_once_until_it_changes(tmp_path: Path) -> None:
    place, cache = tmp_path / "it", tmp_path / "cache.json"
    spec = script(place, "runc version 9.0.0")
    first = prober(cache)
    assert first.probe(spec) == first.probe(spec) == prober(cache).probe(spec)
    assert calls(place) == 2  # its version and its features
    newer = tmp_path / "newer"
    script(newer, "runc version 9.1.0")
    os.rename(newer, place)
    assert prober(cache).probe(spec).version == "9.1.0"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": 1}'])
def test_a_cache_that_cannot_be_read_is_made_anew(tmp_path: Path, content: str) -> None:
    cache = tmp_path / "cache.json"
    cache.write_text(content)
    spec = script(tmp_path / "it", "runc version 9.0.0")
    assert prober(cache).probe(spec).version == "9.0.0"
    assert Prober(Launcher(), NOWHERE, cache).probe(spec).version == "9.0.0"
    assert calls(tmp_path / "it") == 2


def test_what_is_not_there_or_does_not_work_is_said_with_what_to_do(tmp_path: Path) -> None:
    missing = prober().probe(RuntimeSpec("no-such-runtime"))
    assert (missing.problem, missing.path) == ("not installed", "")
    assert missing.advice == "Install it: apt-get install no-such-runtime"
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no library >&2; exit 127\n")
    broken.chmod(0o755)
    found = prober(tmp_path / "cache").probe(RuntimeSpec("broken", path=str(broken)))
    assert found.problem == "does not work: no library"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", RUNTIMES)
def test_the_real_runtimes_answer(name: str, tmp_path: Path) -> None:
    found = prober(found=cgroups.hierarchies()).probe(RuntimeSpec(name, path=program(name, tmp_path)))
    assert found.problem == ""
    assert found.version[:1].isdigit()
    assert found.can["seccomp"] is True
    assert Probe.from_json(found.to_json()) == found


_SYSTRAP = {"platform": ["systrap"], "seccomp": True, "cgroup": ["v2"]}
_GVISOR_FLAGS = """  -oci-seccomp
    \tEnables loading filters.
  -platform string
    \tspecifies which platform to use: ptrace, kvm. (default "systrap")
  -platform_device_path string
    \tpath to a device. (default "x")
"""


@pytest.mark.parametrize(
    ("flags", "found", "can"),
    [
        (
            f"printf '%s' '{_GVISOR_FLAGS}' >&2",
            Hierarchies(Path("/c"), {}),
            _SYSTRAP,
        ),
        ("echo no such command >&2; exit 1", Hierarchies(None, {"memory": Path("/c")}), {"cgroup": ["v1"]}),
    ],
)
def test_gvisor_is_asked_for_the_platform_that_it_takes_by_itself(
    tmp_path: Path, flags: str, found: Hierarchies, can: dict[str, object]
) -> None:
    spec = script(tmp_path / "runsc", "runsc version release-20250101.0", flags)
    seen = prober(tmp_path / "cache", found).probe(spec)
    assert (seen.version, seen.problem) == ("release-20250101.0", "")
    assert seen.can == {**can, "network": ["the node's stack in the sandbox's namespace"], "checkpoint": False}
    assert prober(tmp_path / "cache", found).probe(spec) == seen
    assert calls(Path(spec.path)) == 2
    lone = prober(found=found).probe(RuntimeSpec("it", path=spec.path, options={"network": "none"}))
    assert lone.can == {**can, "network": ["none"], "checkpoint": True}


def test_a_runtime_that_was_built_for_checkpoints_has_them_only_where_criu_works(tmp_path: Path) -> None:
    features = json.dumps(_FEATURES)
    spec = script(tmp_path / "runc", "runc version 1.2.3", f"echo '{features}'")
    assert prober().probe(spec).can["checkpoint"] is (criu.why_not(Launcher()) == "")


def test_the_real_gvisor_says_how_it_runs() -> None:
    if shutil.which("runsc") is None:
        pytest.skip("not installed: runsc")
    found = prober(found=cgroups.hierarchies()).probe(RuntimeSpec("gvisor"))
    assert found.version[:1].isdigit() or found.version.startswith("release-")
    assert found.can["platform"][0] in ("ptrace", "kvm", "systrap")


def test_a_path_that_leads_to_nothing_is_no_matter_of_packages(tmp_path: Path) -> None:
    found = prober().probe(RuntimeSpec("fast", path=str(tmp_path / "none")))
    assert (found.problem, found.advice) == ("not there", "Install it, or correct runtimes.fast.path.")


@pytest.mark.parametrize(
    ("text", "version", "problem"),
    [
        ("printf 'x:\\n  Version:  1.6.20~ds1\\n  Revision: 1.6.20~ds1-1\\n'", "1.6.20~ds1", ""),
        ("echo nothing of that kind", "", ""),
        ("echo no >&2; exit 2", "", "does not work: no"),
    ],
)
def test_a_shim_is_asked_for_its_version_in_its_own_way(tmp_path: Path, text: str, version: str, problem: str) -> None:
    shim = tmp_path / "containerd-shim-x-v1"
    shim.write_text(f'#!/bin/sh\n[ "$*" = -v ] || exit 9\n{text}\n')
    shim.chmod(0o755)
    found = ask_version(str(shim), Launcher(), "-v", r"Version:\s*(\S+)")
    assert (found.version, found.problem) == (version, problem)


def test_a_shim_that_is_missing_is_told_with_its_package() -> None:
    found = Prober(Launcher(), Hierarchies({}, None), None).probe(RuntimeSpec("none-v9", "shim"))
    assert found.problem == "not installed"
    assert found.advice == "Install it: apt-get install containerd"


def qemu(folder: Path) -> RuntimeSpec:
    """A runtime of virtual machines, with a QEMU that only says its version, and no guest yet."""
    said = "QEMU emulator version 9.2.1 (Debian 1:9.2.1+ds-1)"
    spec = script(folder / "qemu", said)
    return RuntimeSpec("vm", "vm", spec.path, {"guest": str(folder / "guest")})


def prepare(folder: Path) -> None:
    (folder / "guest").mkdir()
    for name in (KERNEL, INITRD):
        (folder / "guest" / name).write_bytes(b"x")


def test_machines_lack_a_guest_until_it_is_prepared(tmp_path: Path) -> None:
    spec = qemu(tmp_path)
    found = prober(tmp_path / "cache").probe(spec)
    assert (found.version, found.problem) == ("9.2.1", f"no guest for virtual machines in {tmp_path}/guest")
    assert found.advice == "Run `reconciler runtime prepare vm`."
    prepare(tmp_path)
    found = prober(tmp_path / "cache").probe(spec)
    assert (found.path, found.problem) == (spec.path, "")
    assert found.can["acceleration"] == ["untried" if os.path.exists(DEVICE) else "tcg"]
    assert calls(Path(spec.path)) == 1


def test_what_was_seen_of_kvm_is_told(tmp_path: Path) -> None:
    spec = qemu(tmp_path)
    prepare(tmp_path)
    before = prober().probe(spec).can
    guest = tmp_path / "guest"
    asked = Kvm(guest, Launcher(), SystemClock(), proc.boot_id())
    asked.accelerator(installed(guest, qemu=spec.path))
    told = prober().probe(spec).can
    assert told == before | {"acceleration": ["tcg"]}  # this QEMU ends at once, if it was asked at all
