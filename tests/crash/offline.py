"""A reboot with all that is outside away: `python -m tests.crash.offline HOST`, in a mount namespace of its own.

Makes containers with an agent, one of them from a Source, of an image whose tag is followed; says `ready`, waits for a
line on stdin (the registry is stopped meanwhile), reboots, and starts an agent in a network namespace without any
interface that is up, which must have everything running again; says how long that took.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from reconciler.decide.summary import condition, is_true
from reconciler.model.identity import Key, Kind
from tests import leftovers
from tests.conftest import Node
from tests.crash.ground import NAMES, Ground, documents, ground
from tests.crash.rounds import BOOT_ID, new_boot, power_off
from tests.git_server import HttpGit, Repository

BY_HAND: Final = NAMES[2:6]
BY_SOURCE: Final = NAMES[6]
IMAGE: Final = Key(Kind.IMAGE, "busybox")
SOURCE: Final = Key(Kind.SOURCE, "far")
STALE_SECONDS: Final = 90.0


def status(made: Ground, key: Key) -> Mapping[str, Any]:
    """What the store says of an object, which must be there."""
    obj = made.store.get(key)
    assert obj is not None, key
    return obj.status


def follow_tags(made: Ground) -> None:
    """Have the images of the manifest be what their tags mean: the shortest interval there is."""
    texts = made.manifest.read_text().split("\n---\n")
    objects = [json.loads(text) for text in texts]
    for one in objects:
        if one["kind"] == "Image":
            one["spec"] |= {"pullPolicy": "Always", "update": {"interval": "10s"}}
    made.manifest.write_text("\n---\n".join(map(json.dumps, objects)))


def add_source(made: Ground, served: HttpGit) -> str:
    """A Source on a git server, with a container of its own; its revision."""
    repository = Repository.create(served.folder / "far.git")
    container = documents(made.host, made.ledger, {BY_SOURCE: "1"})[-1]
    revision = repository.commit({"app.yaml": json.dumps(container)})
    url = served.url("far.git")
    done = made.node.cli("source", "add", SOURCE.name, "--git", url, "--interval", "10s", "--timeout", "40s")
    assert done.returncode == 0, done.stdout + done.stderr
    made.containers[BY_SOURCE] = "1"
    return revision


def says_what_is_away(made: Ground, revision: str) -> None:
    """The image is in use and says that it may be old; the Source keeps its last good revision and says why."""
    deadline = time.monotonic() + STALE_SECONDS
    while not is_true(status(made, IMAGE), "Stale") or "lastError" not in status(made, SOURCE):
        assert time.monotonic() < deadline, (status(made, IMAGE), status(made, SOURCE))
        time.sleep(0.1)
    assert is_true(status(made, IMAGE), "Ready")
    stale = condition(status(made, IMAGE), "Stale")
    assert stale is not None
    assert stale["reason"] == "Unavailable", stale
    source = status(made, SOURCE)
    assert source["observedRevision"] == source["lastGoodRevision"] == revision
    assert is_true(source, "Ready"), source
    assert source["lastError"]["category"] == "unavailable", source
    assert source["inventory"] == [f"container/{BY_SOURCE}"]


def story(made: Ground, place: leftovers.Place) -> None:
    """All of it; raises `AssertionError` with what is wrong."""
    made.words = ("--private-mounts",)
    new_boot(place.folder / "boot_id")
    made.want(dict.fromkeys(BY_HAND, "1"), ("web",))
    follow_tags(made)
    made.start_agent()
    made.apply()
    (place.folder / "git").mkdir()
    with HttpGit(place.folder / "git") as served:
        revision = add_source(made, served)
        made.converged()
    print("ready", flush=True)
    sys.stdin.readline()
    made.kill_agent()
    new_boot(place.folder / "boot_id")
    power_off(place)
    made.node.before = ("unshare", "--net")
    made.away = frozenset({SOURCE})
    made.start_agent()
    print(f"all run again {made.converged():.1f} s after the agent had the lock", flush=True)
    says_what_is_away(made, revision)
    made.converged()
    done = made.node.cli("delete", str(SOURCE), "--timeout", "40s")
    assert done.returncode == 0, done.stdout + done.stderr
    del made.containers[BY_SOURCE]
    made.delete_all()


def main(host: str) -> None:
    """The command line in this file's docstring."""
    place = leftovers.Place(Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp")))
    node = Node(place)
    try:
        with ground(node, host) as made:
            story(made, place)
    finally:
        node.stop()
        subprocess.run(["umount", BOOT_ID], check=False)
        leftovers.clean(place)


if __name__ == "__main__":
    main(sys.argv[1])
