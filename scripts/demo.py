"""The demonstration behind `make demo`: images, registry, apply, agent, a crash, a change, and nothing left.

Each step is announced with the command that it runs, which can be typed as it stands while the demo lasts. Root and
state lie in a temporary folder, so that nothing of a node that is in use is touched; however the demo ends, its
processes, mounts and folder are taken away.
"""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests import leftovers
from tests.registry import Registry, image_layouts, missing_tools

HERE: Final = Path(__file__).resolve().parent.parent
MANIFESTS: Final = Path("manifests/demo")
MODULE: Final = Path("manifests/wasm")
REGISTRY_PORT: Final = 5005
WEB_PORT: Final = 8088
IMAGES: Final = {"busybox": "busybox:1", "web": "web:1", "web2": "web:2"}
PAGE: Final = f"http://127.0.0.1:{WEB_PORT}/"
WAIT_SECONDS: Final = 30.0
KEPT: Final = ("volumes", "logs", "attempts", "content/blobs/sha256", "snapshots/overlayfs/snapshots")
"""The folders of root in which things of workloads lie; all are empty when everything has been deleted."""


class Failed(Exception):
    """The demo cannot go on; the message says why."""


def say(text: str) -> None:
    """A line for the reader."""
    print(text, flush=True)


def step(title: str) -> None:
    """Announce a step."""
    say(f"\n== {title}")


def run(*words: str | Path, codes: tuple[int, ...] = (0,)) -> int:
    """Show a command and run it on our own output; raises `Failed` when its exit code is none of `codes`."""
    line = shlex.join(map(str, words))
    say(f"$ {line}")
    code = subprocess.run(list(words), check=False, cwd=HERE).returncode
    if code not in codes:
        raise Failed(f"exit code {code} of: {line}")
    return code


def ask(*words: str) -> str:
    """What a command prints, without showing it, whatever its exit code."""
    return subprocess.run(list(words), check=False, cwd=HERE, capture_output=True, text=True).stdout


def eventually(what: str, true: Callable[[], bool]) -> None:
    """Wait until `true()`; raises `Failed` when that takes too long."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not true():
        if time.monotonic() > deadline:
            raise Failed(f"waited {WAIT_SECONDS:g} s in vain: {what}")
        time.sleep(0.02)


def refuse_taken_ports() -> None:
    """The manifests name two ports; raises `Failed` when somebody listens there already."""
    for port, use in ((REGISTRY_PORT, "the registry"), (WEB_PORT, "the web server")):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise Failed(
                    f"127.0.0.1:{port}, which {use} of the demo needs, is taken ({error.strerror}); "
                    f"see who has it: ss -ltnp 'sport = :{port}'"
                ) from None


@contextmanager
def registry_with_images(folder: Path) -> Iterator[None]:
    """A registry on loopback that holds the demo's images."""
    step("Two images from Debian packages (web in two versions), kept for next time; a registry on loopback")
    layouts = image_layouts(*IMAGES)
    folder.mkdir()
    registry = Registry(folder, port=REGISTRY_PORT)
    say(f"$ docker-registry serve {folder}/config.yml &")
    registry.start()
    try:
        if registry.port != REGISTRY_PORT:
            raise Failed(f"the registry cannot have port {REGISTRY_PORT}; see {registry.log}")
        for layout, ref in zip(layouts, IMAGES.values(), strict=True):
            target = f"docker://{registry.host}/{ref}"
            run("skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}:latest", target)
        yield
    finally:
        registry.stop()


@contextmanager
def agent(folder: Path) -> Iterator[None]:
    """The agent, its words in a file."""
    log = folder / "agent.log"
    say(f"$ reconciler agent >{log} 2>&1 &")
    with log.open("wb") as sink:
        child = subprocess.Popen(["reconciler", "agent"], stdout=sink, stderr=sink, cwd=HERE)
    try:
        eventually("the agent starts", lambda: "agent running" in ask("reconciler", "status", "--oneline"))
        yield
    finally:
        child.terminate()
        child.wait(WAIT_SECONDS)
        if said := log.read_text().strip():
            say(f"(the agent said: {said[-2000:]})")


def web() -> dict[str, object]:
    """The status of container/web."""
    status = json.loads(ask("reconciler", "get", "container", "web", "-o", "json"))["status"]
    assert isinstance(status, dict)
    return status


def crash_and_recovery() -> None:
    """Kill the web server's first process; wait for the next one."""
    step("Kill the web server's process: the agent starts it again")
    before = web()
    pid = int(str(before["pid"]))
    say(f"$ kill -9 {pid}")
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    eventually("the page is back", lambda: web().get("pid") not in (None, pid) and fetch() == 0)
    say(f"(the page was there again after {time.monotonic() - began:.1f} s)")
    run("reconciler", "get", "containers", "-o", "wide")
    run("curl", "--silent", "--show-error", PAGE)


def fetch() -> int:
    """curl's exit code for the page, quietly."""
    return subprocess.run(["curl", "--silent", "--fail", "--output", "/dev/null", PAGE], check=False).returncode


def change(folder: Path) -> Path:
    """A copy of the manifests with the next version of the web image: shown by `diff`, done by `apply`."""
    step("Change a manifest (in a copy): first what would be done, then do it")
    copy = folder / "manifests"
    shutil.copytree(HERE / MANIFESTS, copy)
    run("sed", "-i", "s,/web:1,/web:2,", copy / "50-web.yaml")
    run("reconciler", "diff", "-f", copy, codes=(1,))
    run("reconciler", "apply", "--timeout", "2m", "-f", copy)
    eventually("the new page", lambda: fetch() == 0)
    run("curl", "--silent", "--show-error", PAGE)
    return copy


def inventory(place: leftovers.Place) -> dict[str, int]:
    """How many things of the node's workloads are on the machine, by sort."""
    mounts = list(leftovers.mounts(place))
    namespaces = [mount for mount in mounts if mount.kind == "nsfs"]
    groups = [folder for top in leftovers.cgroups(place) for folder in top.rglob("*") if folder.is_dir()]
    groups = [folder for folder in groups if not {"helpers", "monitors"} & set(folder.parts)]
    files = [path for room in KEPT for path in (place.root / room).rglob("*") if not path.is_dir()]
    named = [pid for pid in leftovers.processes(place) if not of_the_demo(pid)]
    return {
        "processes": len(named),
        "mounts": len(mounts) - len(namespaces),
        "namespaces": len(namespaces),
        "cgroups": len(groups),
        "files": len(files),
    }


def of_the_demo(pid: int) -> bool:
    """Whether a process is the agent or the registry, which the demo itself ends."""
    words = leftovers.read_bytes(f"/proc/{pid}/cmdline").split(b"\0")
    return b"agent" in words or b"serve" in words


def show_inventory(place: leftovers.Place) -> int:
    """Print the inventory; returns how many things it lists."""
    found = inventory(place)
    say("of the workloads on this machine: " + ", ".join(f"{count} {what}" for what, count in found.items()))
    return sum(found.values())


def reaped(place: leftovers.Place) -> bool:
    """Whether pid 1 has taken note of all monitors that have ended (some take their time)."""
    return not inventory(place)["processes"]


def whole(place: leftovers.Place) -> None:
    """Every step, as root with everything installed."""
    os.environ |= {"RECONCILER_ROOT": str(place.root), "RECONCILER_STATE": str(place.state)}
    say(f"$ export RECONCILER_ROOT={place.root} RECONCILER_STATE={place.state}")
    with registry_with_images(place.folder / "registry"):
        step("From manifests to running containers")
        run("reconciler", "apply", "--timeout", "2m", "-f", MANIFESTS)
        step("The agent, which keeps it so")
        with agent(place.folder):
            run("reconciler", "get", "all")
            eventually("the page", lambda: fetch() == 0)
            run("curl", "--silent", "--show-error", PAGE)
            run("reconciler", "logs", "--tail", "2", "clock")
            crash_and_recovery()
            copy = change(place.folder)
            step("Delete everything: nothing of it is left")
            show_inventory(place)
            run("reconciler", "delete", "--timeout", "2m", "-f", copy)
            eventually("no process of the workloads is left", lambda: reaped(place))
            if show_inventory(place):
                raise Failed("something is left: " + "; ".join(leftovers.find(place)))
    if left := leftovers.settle(place, 5.0):
        raise Failed("something is left: " + "; ".join(left))


def what_works_without(reason: str) -> None:
    """The part that needs neither root nor a runtime."""
    say(f"Containers of processes cannot be run here ({reason}); this is what works all the same.")
    step("What the node lacks, and what to install")
    run("reconciler", "doctor", codes=(0, 1))
    step("A WASM module runs: it needs neither root nor a package")
    run("reconciler", "apply", "--timeout", "60s", "-f", MODULE)
    run("reconciler", "get", "containers")
    run("reconciler", "logs", "greeter")
    run("reconciler", "delete", "--timeout", "30s", "-f", MODULE)
    step("What would be done with the demo's manifests")
    run("reconciler", "apply", "--dry-run", "-f", MANIFESTS)
    step("Faults are found where they are written")
    fault = "apiVersion: reconciler/v1\nkind: Image\nmetadata: {name: web}\nspec: {reff: web}\n"
    say("$ reconciler apply --dry-run -f - <<END\n" + fault + "END")
    words = ["reconciler", "apply", "--dry-run", "-f", "-"]
    subprocess.run(words, input=fault, text=True, check=False, cwd=HERE)


def main() -> int:
    """The exit code."""
    os.chdir(HERE)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
    place = leftovers.Place(Path(tempfile.mkdtemp(prefix="rc-demo-", dir="/tmp")))
    lacking = [*missing_tools(), *(name for name in ("runc", "conmon", "curl") if shutil.which(name) is None)]
    reason = "not root" if os.geteuid() != 0 else f"not installed: {', '.join(lacking)}" if lacking else ""
    try:
        if reason:
            os.environ |= {"RECONCILER_ROOT": str(place.root), "RECONCILER_STATE": str(place.state)}
            what_works_without(reason)
        else:
            refuse_taken_ports()
            whole(place)
    except Failed as failure:
        say(f"\ndemo: {failure}")
        return 1
    except KeyboardInterrupt:
        say("\ndemo: interrupted; cleaning up")
        return 130
    finally:
        leftovers.clean(place)
    say("\nThe demo is over; nothing of it is left but the images in the cache, for next time.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
