"""Debian packages, fetched and unpacked, never installed: what a guest is made from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from core.errors import Unavailable, Unsupported
from core.process import Launcher
from core.values import dataclass

LISTS: Final = Path("/var/lib/apt/lists")
_KERNELS: Final = {"amd64": "linux-image-cloud-amd64", "arm64": "linux-image-cloud-arm64"}
_PROGRAMS: Final = ("crun", "python3-minimal", "busybox-static")
_FETCH_SECONDS: Final = 900.0


@dataclass(frozen=True, slots=True)
class Package:
    """One package at one version; `sha256` as the archive's signed list has it."""

    name: str
    version: str
    sha256: str


def lists_seen() -> str:
    """What changes whenever apt's lists do: cheap to ask for."""
    try:
        found = sorted(LISTS.iterdir())
    except OSError:
        return ""
    seen = ((path.name, path.stat()) for path in found if path.is_file())
    return ";".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in seen)


class Apt:
    """Debian's archive as this machine's apt knows it."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def wanted(self) -> list[Package]:
        """All that a guest is made from, at the newest versions; raises `Unavailable`, `Unsupported`."""
        for tool in ("apt-get", "apt-cache", "dpkg", "dpkg-deb"):
            if shutil.which(tool) is None:
                raise Unsupported(f"no {tool}: a guest is made from Debian's packages", advice=_HERE + _ELSEWHERE)
        architecture = self._launcher.check(["dpkg", "--print-architecture"]).text().strip()
        if architecture not in _KERNELS:
            raise Unsupported(f"no kernel for virtual machines on {architecture}", advice=_HERE + _ELSEWHERE)
        meta = _KERNELS[architecture]
        kernel = next((name for name in self._needs(meta) if name.startswith("linux-image-")), "")
        if not kernel:
            raise _unknown(meta)
        names = {kernel, *self._closure()}
        python = next((name for name in names if name.startswith("libpython3.") and name.endswith("-minimal")), "")
        if not python:
            raise _unknown("python3-minimal")
        return self._described({*names, python.replace("-minimal", "-stdlib")})

    def _needs(self, name: str) -> Iterator[str]:
        shown = self._launcher.run(["apt-cache", "depends", "--important", name]).text()
        yield from (line.split()[1] for line in shown.splitlines() if line.startswith("  Depends:"))

    def _closure(self) -> set[str]:
        """The programs and all that they cannot be without."""
        options = ("--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces")
        shown = self._launcher.run(["apt-cache", "depends", *options, "--no-enhances", *_PROGRAMS]).text()
        names = {line for line in shown.splitlines() if line and not line.startswith((" ", "<"))}
        if lacking := set(_PROGRAMS) - names:
            raise _unknown(sorted(lacking)[0])
        return {name for name in names if ":" not in name}

    def _described(self, names: set[str]) -> list[Package]:
        shown = self._launcher.check(["apt-cache", "show", "--no-all-versions", *sorted(names)], timeout=60).text()
        found = {}
        for paragraph in shown.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
            if "Package" in fields and "SHA256" in fields:
                found[fields["Package"]] = Package(fields["Package"], fields["Version"], fields["SHA256"])
        return [found[name] for name in sorted(found)]

    def fetch(self, packages: Sequence[Package], folder: Path) -> list[Path]:
        """The packages' files, in `folder`; apt checks them against the signed list. Raises `Unavailable`."""
        argv = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root"]
        asked = [f"{one.name}={one.version}" for one in packages]
        result = self._launcher.run([*argv, *asked], timeout=_FETCH_SECONDS, cwd=str(folder))
        files = sorted(folder.glob("*.deb"))
        if result.code == 0 and len(files) == len(packages):
            return files
        fetched = {path.name.partition("_")[0] for path in files}
        lacking = next((one.name for one in packages if one.name not in fetched), "")
        raise Unavailable(
            f"the package {lacking} could not be fetched: {result.complaint()}",
            advice="Try again when the network is there, after `apt-get update`.",
        )

    def unpack(self, files: Sequence[Path], tree: Path) -> None:
        """Lay out the files of packages below `tree`."""
        tree.mkdir(exist_ok=True)
        for path in files:
            self._launcher.check(["dpkg-deb", "-x", str(path), str(tree)], timeout=120)


_HERE: Final = "Where that cannot be, "
_ELSEWHERE: Final = (
    "Prepare it on a Debian machine of the same architecture, copy the folder here, and name it by --guest."
)


def _unknown(name: str) -> Unavailable:
    return Unavailable(f"apt knows no package {name}", advice=f"Run `apt-get update`. {_HERE}{_ELSEWHERE}")
