"""What an engine that finds nothing to do must not load: it is most of what a no-op apply takes."""

import subprocess
import sys

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


def test_a_migration_loads_no_model_no_yaml_and_no_store() -> None:
    heavy = ("pydantic", "ruamel", "sqlite3", "ssl", "reconciler.config", "reconciler.sources")
    look = f"import sys, reconciler.cli.migrating; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True).stdout == "[]\n"
