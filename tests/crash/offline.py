"""A reboot with the registry away: `python -m tests.crash.offline HOST`, in a mount namespace of its own.

Makes containers with an agent, says `ready`, waits for a line on stdin (the registry is stopped meanwhile), reboots,
and starts an agent, which must have everything running again; says how long that took.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests import leftovers
from tests.conftest import Node
from tests.crash.ground import NAMES, ground
from tests.crash.rounds import BOOT_ID, new_boot, power_off


def main(host: str) -> None:
    """All of it; raises `AssertionError` with what is wrong."""
    place = leftovers.Place(Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp")))
    node = Node(place)
    try:
        with ground(node, host) as made:
            made.words = ("--private-mounts",)
            new_boot(place.folder / "boot_id")
            made.want(dict.fromkeys(NAMES[2:6], "1"), ("web",))
            made.start_agent()
            made.apply()
            made.converged()
            print("ready", flush=True)
            sys.stdin.readline()
            made.kill_agent()
            new_boot(place.folder / "boot_id")
            power_off(place)
            made.start_agent()
            print(f"all run again {made.converged():.1f} s after the agent had the lock", flush=True)
            made.delete_all()
    finally:
        node.stop()
        subprocess.run(["umount", BOOT_ID], check=False)
        leftovers.clean(place)


if __name__ == "__main__":
    main(sys.argv[1])
