"""What an engine that finds nothing to do must not load: it is most of what a no-op apply takes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Node
from tests.figures import Figure
from tests.registry import image_layouts

NEEDED_BY_FEW = (
    "ssl",
    "http.client",
    "urllib3",
    "email",
    "asyncio",
    "git",
    "opentelemetry",
    "zstandard",
    "isal",
    "tomllib",
)


def test_an_engine_that_has_nothing_to_do_loads_nothing_for_it() -> None:
    look = f"import sys, reconciler.assembly; print([name for name in {NEEDED_BY_FEW} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True).stdout == "[]\n"


OTHER_DRIVERS = ("vm.driver", "vm.sandboxes", "vm.link", "shimv2", "wasm", "wasm_sandboxes", "gvisor")
APPLY = """
import sys
from reconciler.cli.main import run
code = run(sys.argv[1:])
print(code, [name for name in {names} if f"core.runtime.{{name}}" in sys.modules], "core.runtime.oci" in sys.modules)
"""


@pytest.mark.root
def test_an_apply_of_runc_containers_loads_no_driver_of_machines_shims_or_modules(node: Node) -> None:
    path = node.place.folder / "all.yaml"
    (layout,) = image_layouts("busybox")
    path.write_text(
        f"apiVersion: reconciler/v1\nkind: Image\nmetadata: {{name: box}}\nspec: {{ref: box, archive: {layout}}}\n---\n"
        "apiVersion: reconciler/v1\nkind: Container\nmetadata: {name: web}\nspec:\n  image: box\n"
        "  network: {mode: none}\n  command: [sleep, infinity]\n  stop: {signal: KILL}\n"
    )
    words = node.arguments("apply", "-f", path)[1:]
    look = [sys.executable, "-c", APPLY.format(names=OTHER_DRIVERS), *words]
    for _ in range(2):  # the second finds what the first has made
        done = subprocess.run(look, check=True, capture_output=True, text=True, timeout=120)
        assert done.stdout.splitlines()[-1] == "0 [] True", done.stderr
    assert node.cli("delete", "-f", path).returncode == 0


def test_a_migration_loads_no_model_no_yaml_and_no_store() -> None:
    heavy = ("pydantic", "ruamel", "sqlite3", "ssl", "reconciler.config", "reconciler.sources")
    look = f"import sys, reconciler.cli.migrating; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True).stdout == "[]\n"


GOLDEN = Path(__file__).parents[2] / "golden"


def processor_time(words: list[str], env: dict[str, str]) -> float:
    """Seconds of processor time that a process took, from its start to its end; it must end with 0."""
    with subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_utime + used.ru_stime


def test_a_migration_of_200_lines_takes_less_than_150_ms_as_a_whole_process(tmp_path: Path, figure: Figure) -> None:
    file = GOLDEN / "config" / "default-1.6.20.toml"
    assert len(file.read_text().splitlines()) > 200
    env = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}  # compiled once, as what is installed is
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    words = [
        sys.executable,
        "-m",
        "reconciler.cli.main",
        "config",
        "migrate",
        "--from",
        "containerd",
        str(file),
        "--to",
        "4",
    ]
    best = min(processor_time(words, env) for _ in range(8))
    figure("a migration of 200 lines", best * 1000, "ms")
    assert best <= 0.15
