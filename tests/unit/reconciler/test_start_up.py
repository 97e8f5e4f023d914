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
