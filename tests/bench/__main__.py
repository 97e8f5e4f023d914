"""`make bench`: prints one table, writes docs/benchmarks.json and .md and the README's table from the same data.

`python -m tests.bench [SECTION…]` measures some sections (pull, start, steady, resync, runtimes) only, writes nothing.
"""

import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import pull, report, resync, runtimes, start, steady
from tests.bench.ground import folder, fresh_disk, machine_facts, missing, quiet_disk, run, say
from tests.bench.report import Report, Row
from tests.registry import Registry, image_layouts, missing_tools


def main(words: Sequence[str]) -> int:
    """0 when all could be measured, whatever came out of it; 2 when this machine cannot measure at all."""
    if os.geteuid() != 0:
        print("bench: needs root: it makes containers", file=sys.stderr)
        return 2
    if reason := missing(*missing_tools(), "conmon", "runc"):
        print(f"bench: {reason}: make setup", file=sys.stderr)
        return 2
    compile_modules()
    facts = machine_facts()
    with folder("bench") as place, fresh_disk(place / "disk") as disk:
        found = Report(tuple(measure(place, disk, words)), facts, datetime.now(UTC).date().isoformat())
    print(found.table())
    if not words:
        found.save()
        if report.BEGIN in report.README.read_text():
            report.main(())
    return 0


def compile_modules() -> None:
    """Has our modules compiled, as an installer leaves them, whatever this environment says of writing bytecode."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    run(
        [
            sys.executable,
            "-m",
            "compileall",
            "-q",
            *(report.TOP / name for name in ("core", "reconciler", "migrations")),
        ]
    )


def measure(place: Path, disk: Path, words: Sequence[str]) -> list[Row]:
    """The rows of the sections named, or of all."""
    say("making the images")
    small, big = image_layouts("busybox", "debian-big")
    (place / "registry").mkdir()
    registry = Registry(place / "registry").start()
    try:
        ref, big_ref = (registry.push(layout, f"{layout.name}:latest") for layout in (small, big))
        sections: dict[str, Callable[[], list[Row]]] = {
            "pull": lambda: pull.measure(place, big_ref, big),
            "start": lambda: start.measure(disk, ref, small),
            "steady": lambda: steady.measure(disk, ref),
            "resync": lambda: resync.measure(disk, ref),
            "runtimes": lambda: runtimes.measure(disk, ref, registry),
        }
        if unknown := set(words) - set(sections):
            raise SystemExit(f"no such section: {', '.join(sorted(unknown))}; there are: {', '.join(sections)}")
        rows = []
        for name in words or sections:
            say(f"section {name}")
            quiet_disk()
            rows += sections[name]()
        return rows
    finally:
        registry.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
