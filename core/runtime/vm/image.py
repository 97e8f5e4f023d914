"""Makes what a virtual machine's guest starts from: a kernel and an initramfs with crun, Python and our agent.

Rules of this file: a guest's folder has its three files whole, or the old ones; `guest.json`, the last to come, says
what they are made from. Who makes holds the lock beside them. Nothing is installed, nothing outside the folder is
written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from core import fsio
from core.errors import Corrupt, Failed, from_os_error
from core.process import Launcher
from core.runtime.vm import kernels
from core.runtime.vm.cpio import Archive
from core.runtime.vm.packages import Apt, Package, lists_seen

KERNEL: Final = "kernel"
INITRAMFS: Final = "initramfs"
ABOUT: Final = "guest.json"
_TOP: Final = Path(__file__).resolve().parents[3]
_PACKAGES: Final = ("core/__init__.py", "core/runtime/__init__.py", "core/runtime/vm/__init__.py")
_OURS: Final = (*_PACKAGES, "core/runtime/vm/frames.py", "core/runtime/trees.py")
_MAKERS: Final = ("cpio.py", "image.py", "kernels.py", "packages.py", "guest/init")
_APPLETS: Final = ("cat", "chmod", "chroot", "insmod", "ip", "mkdir", "mount", "poweroff", "rmdir", "sh", "umount")
_LIBRARIES: Final = ("lib/*-linux-gnu", "usr/lib/*-linux-gnu")
_LOADERS: Final = {"x86_64": "lib64/ld-linux-x86-64.so.2", "aarch64": "lib/ld-linux-aarch64.so.1"}
Say = Callable[[str], None]

_COMPILE: Final = """
import sys
top, out = sys.argv[1:3]
sys.path.insert(0, top)
names = type(sys)("typing")
names.__file__ = top + "/core/runtime/vm/guest/names.py"
with open(names.__file__) as source:
    exec(compile(source.read(), names.__file__, "exec"), names.__dict__)
sys.modules["typing"] = names
import core.runtime.vm.guest.agent, core.runtime.vm.guest.copying, json.decoder, json.encoder, socket, fcntl, traceback
import encodings.ascii, encodings.latin_1, encodings.idna
import importlib._bootstrap_external as outside
import marshal, os
for name, module in sorted(sys.modules.items()):
    path = getattr(module, "__file__", None) or ""
    if name == "__main__" or not path:
        continue
    place = name.replace(".", "/") + ("/__init__" if hasattr(module, "__path__") else "")
    if path.endswith(".py"):
        with open(path, "rb") as source:
            code = compile(source.read(), place + ".py", "exec", dont_inherit=True)
        data, place = bytes(outside._code_to_timestamp_pyc(code)), place + ".pyc"
    else:
        with open(path, "rb") as source:
            data = source.read()
        place = "lib-dynload/" + os.path.basename(path)
    os.makedirs(os.path.dirname(out + "/" + place), exist_ok=True)
    with open(out + "/" + place, "wb") as file:
        file.write(data)
"""


class Maker:
    """Makes the guest in `folder`; `say` gets a line for each step that takes time."""

    def __init__(self, folder: Path, launcher: Launcher, say: Say) -> None:
        self._folder = folder
        self._launcher = launcher
        self._say = say
        self._apt = Apt(launcher)

    def make(self) -> bool:
        """Make it where it is not current; whether there was anything to do.

        Raises `Unavailable` (a package cannot be had), `Unsupported` (no Debian), `Corrupt`, `NoSpace`, `Denied`.
        """
        if self._current(lists_seen()):
            return False
        try:
            return self._made()
        except OSError as error:
            raise from_os_error(error, f"making {self._folder}") from error

    def _made(self) -> bool:
        self._folder.mkdir(parents=True, exist_ok=True)
        with fsio.locked(self._folder / ".lock"):
            fsio.sweep_staging(self._folder)
            seen = lists_seen()
            if self._current(seen):
                return False
            packages = self._apt.wanted()
            about = {"recipe": recipe(), "lists": seen, "packages": {one.name: one.version for one in packages}}
            about["sources"] = hashlib.sha256("".join(one.sha256 for one in packages).encode()).hexdigest()
            made = not self._same(about)
            if made:
                self._build(packages, about)
            else:
                about = {**read(self._folder), "lists": seen}
            fsio.write_atomic(self._folder / ABOUT, json.dumps(about, indent=1).encode(), mode=0o644)
            return made

    def _current(self, seen: str) -> bool:
        about = read(self._folder)
        return bool(seen) and about.get("lists") == seen and about.get("recipe") == recipe() and self._there(about)

    def _same(self, about: dict[str, Any]) -> bool:
        old = read(self._folder)
        return all(old.get(key) == about[key] for key in ("recipe", "sources")) and self._there(old)

    def _there(self, about: dict[str, Any]) -> bool:
        try:
            return all((self._folder / name).stat().st_size == about[name]["bytes"] for name in (KERNEL, INITRAMFS))
        except (OSError, KeyError, TypeError):
            return False

    def _build(self, packages: list[Package], about: dict[str, Any]) -> None:
        with fsio.staging(self._folder) as work:
            files = work / "packages"
            files.mkdir()
            self._say(f"fetching {len(packages)} packages")
            fetched = self._apt.fetch(packages, files)
            self._say("unpacking them")
            self._apt.unpack(fetched, work / "tree")
            self._say("making the image")
            image, version = kernels.kernel(work / "tree", self._launcher)
            about["kernel_version"] = version
            archive = self._archive(work / "tree", work)
            for name, data in ((KERNEL, image), (INITRAMFS, archive)):
                about[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                fsio.write_atomic(self._folder / name, data, mode=0o644)

    def _archive(self, tree: Path, work: Path) -> bytes:
        archive = Archive()
        for folder in ("new", "proc", "sys", "dev"):
            archive.folder(folder)
        archive.device("dev/console", 5, 1)
        archive.device("dev/null", 1, 3)
        archive.file("init", (_TOP / "core/runtime/vm/guest/init").read_bytes(), executable=True)
        archive.file("bin/busybox", (tree / "bin/busybox").read_bytes(), executable=True)
        for applet in _APPLETS:
            archive.link(f"bin/{applet}", "busybox")
        taken, orders = kernels.modules(tree)
        for name, data in taken.items():
            archive.file(f"modules/{name}.ko", data)
        for group, order in orders.items():
            archive.file(f"modules/{group}", " ".join(order).encode())
        self._programs(archive, tree)
        self._python(archive, tree, work)
        return archive.done()

    def _programs(self, archive: Archive, tree: Path) -> None:
        python = _python(tree)
        loader = _LOADERS[platform.machine()]
        archive.file(loader, (tree / loader).read_bytes(), executable=True)
        archive.file("usr/bin/crun", (tree / "usr/bin/crun").read_bytes(), executable=True)
        archive.file("usr/bin/python3", python.read_bytes(), executable=True)
        needed = {name for path in (tree / "usr/bin/crun", python) for name in self._libraries(tree, path)}
        for library in sorted(needed):
            archive.file(f"lib/{Path(library).name}", Path(library).read_bytes(), executable=True)

    def _libraries(self, tree: Path, program: Path) -> Iterator[str]:
        """The shared libraries of a program, asked of the tree's own loader."""
        for line in self._launcher.check([*_loading(tree), "--list", str(program)]).text().splitlines():
            _, arrow, path = line.strip().partition(" => ")
            if arrow and path.startswith("/") and "/ld-linux" not in path:
                yield path.split()[0]

    def _python(self, archive: Archive, tree: Path, work: Path) -> None:
        """The agent and all that it imports, compiled by the guest's own interpreter."""
        out, ours = work / "python", work / "ours"
        for path in our_files():
            _copied(path, ours)
        python = _python(tree)
        argv = [*_loading(tree), str(python), "-S", "-B", "-c", _COMPILE, str(ours), str(out)]
        result = self._launcher.run(argv, env={"PYTHONHOME": str(tree / "usr")}, timeout=60)
        if result.code:
            raise Failed(f"the guest's Python cannot import the agent: {result.complaint()}")
        for path in sorted(out.rglob("*")):
            if path.is_file():
                archive.file(f"usr/lib/{python.name}/{path.relative_to(out)}", path.read_bytes())


def _copied(path: Path, top: Path) -> None:
    target = top / path.relative_to(_TOP)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes())


def _python(tree: Path) -> Path:
    found = sorted(tree.glob("usr/bin/python3.*[0-9]"))
    if not found:
        raise Corrupt("python3-minimal has no interpreter")
    return found[-1]


def _loading(tree: Path) -> list[str]:
    folders = ":".join(str(path) for pattern in _LIBRARIES for path in sorted(tree.glob(pattern)))
    return [str(tree / _LOADERS[platform.machine()]), "--library-path", folders]


def our_files() -> list[Path]:
    """The sources of what runs in the guest."""
    return [*(_TOP / name for name in _OURS), *sorted((_TOP / "core/runtime/vm/guest").glob("*.py"))]


def recipe() -> str:
    """What changes whenever our own part of a guest does."""
    makers = [_TOP / "core/runtime/vm" / name for name in _MAKERS]
    digest = hashlib.sha256()
    for path in [*our_files(), *makers]:
        data = path.read_bytes()
        digest.update(f"{path.name} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def read(folder: Path) -> dict[str, Any]:
    """What a prepared guest is made from; empty where there is none."""
    with contextlib.suppress(OSError, ValueError):
        about = json.loads((folder / ABOUT).read_bytes())
        if isinstance(about, dict):
            return about
    return {}
