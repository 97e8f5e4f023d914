"""A module needs no root: applied, seen and removed by a user who is nobody."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests import leftovers
from tests.conformance.shim_wasm_ground import FOREVER, program
from tests.e2e.test_wasm import layout, module
from tests.e2e.workloads import document, eventually
from tests.registry import Registry

pytestmark = pytest.mark.root
NOBODY: Final = 65534
TOP: Final = Path(__file__).parents[2]
_START: Final = "import sys; from reconciler.cli.main import main; sys.argv[0] = 'reconciler'; main()"


def pythons() -> Iterator[str]:
    """Interpreters of our version that a user without rights may be able to run."""
    version = f"python3.{sys.version_info.minor}"
    yield sys.executable
    yield from (path for name in (version, "python3") if (path := shutil.which(name, path="/usr/bin:/usr/local/bin")))


class Nobody:
    """A user without rights, with a node of their own."""

    def __init__(self, place: leftovers.Place) -> None:
        self.place = place
        packages = next(path for path in sys.path if path.endswith("site-packages"))
        self.env = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(place.folder),
            "PYTHONPATH": f"{TOP}:{packages}",
            "RECONCILER_ROOT": str(place.root),
            "RECONCILER_STATE": str(place.state),
        }
        self.python = next((one for one in pythons() if self._can(one)), "")

    def _can(self, python: str) -> bool:
        try:
            tried = self.run(python, "-c", "import wasmtime, zstandard, isal, pydantic_core, reconciler")
        except PermissionError:
            return False
        return tried.returncode == 0

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command as that user."""
        ids = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        return subprocess.run(argv, capture_output=True, text=True, env=self.env, cwd="/", timeout=60, **ids)  # type: ignore[call-overload]  # as keywords

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `reconciler WORDS` as that user."""
        return self.run(self.python, "-c", _START, *words)


@pytest.fixture
def nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nobody]:
    place = leftovers.Place(Path("/tmp") / f"rc-nobody-{os.getpid()}")
    place.folder.mkdir()
    os.chown(place.folder, NOBODY, NOBODY)
    try:
        user = Nobody(place)
        if not user.python:
            pytest.skip("no interpreter here that a user without rights can run with our packages")
        yield user
        assert leftovers.settle(place, 5.0) == []
    finally:
        leftovers.clean(place)


def test_a_module_is_applied_runs_and_goes_without_root(nobody: Nobody, registry: Registry, tmp_path: Path) -> None:
    body = f"(call $say (i32.const 1024) (i32.const 6)) {FOREVER}"
    made = layout(
        tmp_path / "made", (b"{}", "application/vnd.oci.empty.v1+json"), (program(body, "hello\n"), "application/wasm")
    )
    image = registry.push(made, "rootless:latest")
    mounts = [{"path": "/data", "volume": "kept"}, {"path": "/s", "secret": "held"}]
    file = nobody.place.folder / "all.json"
    documents = (
        document("Volume", "kept", {}),
        document("Secret", "held", {"stringData": {"key": "x"}}),
        module("hello", image, mounts=mounts, resources={"memory": "16Mi"}),
    )
    file.write_text("---\n".join(f"{json.dumps(one)}\n" for one in documents))
    done = nobody.cli("apply", "-f", str(file), "--timeout", "40s")
    assert done.returncode == 0, done.stdout + done.stderr
    eventually(lambda: nobody.cli("logs", "hello").stdout == "hello\n", "it has spoken")
    told = json.loads(nobody.cli("get", "container", "hello", "-o", "json").stdout)
    pid = (told.get("items") or [told])[0]["status"]["pid"]
    assert os.stat(f"/proc/{pid}").st_uid == NOBODY
    done = nobody.cli("delete", "container", "hello", "--timeout", "30s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not Path(f"/proc/{pid}").exists()
    assert nobody.cli("delete", "volume", "kept", "--purge").returncode == 0


def test_what_needs_root_still_says_so(nobody: Nobody) -> None:
    file = nobody.place.folder / "plain.json"
    file.write_text(json.dumps(document("Container", "plain", {"image": "busybox:1", "network": {"mode": "none"}})))
    done = nobody.cli("apply", "-f", str(file))
    assert done.returncode != 0
    assert "needs root" in done.stderr
