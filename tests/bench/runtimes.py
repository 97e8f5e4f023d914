"""One container under each runtime: how soon it runs, how soon it says something, what it holds while it is idle."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from core import proc
from tests import leftovers
from tests.bench.ground import (
    API,
    LIMIT_SECONDS,
    Broken,
    apply,
    fresh_node,
    image,
    missing,
    run,
    start_agent,
    timed,
    write,
)
from tests.bench.peers import containerd
from tests.bench.report import Row
from tests.conformance.shim_wasm_ground import FOREVER
from tests.conformance.shim_wasm_ground import program as module_program
from tests.conftest import Node
from tests.e2e.test_wasm import layout
from tests.registry import Registry
from tests.runtimes import program

RUNTIMES: Final = ("runc", "crun", "gvisor", "runc-v2", "vm", "wasm")
ROUNDS: Final = 3
SETTLE_SECONDS: Final = 2.0
MEGA: Final = 1e6
FIRST_GOAL: Final = {"vm": 4.0}
PEER: Final = "ctr run -d"
HOW: Final = "One Container that says a word and sleeps (network none), image here, agent up. "


def measure(folder: Path, ref: str, registry: Registry) -> list[Row]:
    """Three rows a runtime; a runtime that cannot run here says why."""
    say = module_program(f"(call $say (i32.const 1024) (i32.const 3)) {FOREVER}", "up\n")
    config = json.dumps({"architecture": "wasm", "os": "wasip1"}).encode()
    made = layout(folder / "module", (config, "application/vnd.wasm.config.v0+json"), (say, "application/wasm"))
    module = registry.push(made, "up:latest")
    theirs = tuple(_theirs(folder, ref))
    return [row for runtime in RUNTIMES for row in _rows(folder, runtime, ref, module, theirs)]


def _rows(folder: Path, runtime: str, ref: str, module: str, theirs: tuple[float, ...]) -> Iterator[Row]:
    running, first, memory = (
        f"{what}, {runtime}" for what in ("apply → Running", "apply → first line", "memory of an idle container")
    )
    goal = FIRST_GOAL.get(runtime)
    try:
        seen = _measured(folder, runtime, ref, module)
    except Broken as error:
        reason = next((line for line in str(error).splitlines() if line.startswith("error:")), str(error).strip())[:160]
        yield from (
            Row(what, skipped=reason, goal=goal if what == first else None) for what in (running, first, memory)
        )
        return
    yield Row(running, "s", tuple(one[0] for one in seen), how=f"{HOW}`reconciler apply` as a whole process.")
    yield Row(first, "s", tuple(one[1] for one in seen), goal=goal, how=f"{HOW}From its start to the line in the log.")
    how = f"{HOW}PSS of all that belongs to the container and is not the agent; `{PEER}`: its shim and the process."
    held = tuple(one[2] for one in seen)
    yield Row(memory, "MB", held, PEER, theirs, how=how) if theirs else Row(memory, "MB", held, how=how)


def _measured(folder: Path, runtime: str, ref: str, module: str) -> list[tuple[float, float, float]]:
    """Seconds to Running, seconds to the first line, megabytes; round by round. Raises `Broken`."""
    with fresh_node(folder) as node, _configured(node, runtime):
        if runtime != "wasm":
            apply(node, [image("busybox", ref)], "image")
        agent = start_agent(node)
        what = module if runtime == "wasm" else "busybox"
        run(node.arguments("apply", "--timeout", "30s", "-f", write(node, [_container("warm", runtime, what)], "warm")))
        run(node.arguments("delete", "container/warm"))
        return [_round(node, agent, runtime, what) for _ in range(ROUNDS)]


@contextmanager
def _configured(node: Node, runtime: str) -> Iterator[None]:
    """crun by the program that this machine needs for it, for all commands inside the block."""
    if runtime != "crun" or missing("crun"):
        yield
        return
    config = {"version": 2, "runtimes": {"crun": {"path": program("crun", node.place.folder / "runtimes")}}}
    file = node.place.folder / "config.yaml"
    file.write_text(json.dumps(config))
    os.environ["RECONCILER_CONFIG"] = str(file)
    try:
        yield
    finally:
        del os.environ["RECONCILER_CONFIG"]


def _round(node: Node, agent: int, runtime: str, what: str) -> tuple[float, float, float]:
    before = set(leftovers.processes(node.place))
    one = node.arguments("apply", "--timeout", "30s", "-f", write(node, [_container("one", runtime, what)], "one"))
    running = timed(one)
    time.sleep(SETTLE_SECONDS)
    held = sum(proc.pss_bytes(pid) for pid in set(leftovers.processes(node.place)) - before - {agent}) / MEGA
    run(node.arguments("delete", "container/one"))
    two = node.arguments("apply", "--timeout", "30s", "-f", write(node, [_container("two", runtime, what)], "two"))
    begin = time.perf_counter()
    with subprocess.Popen([str(word) for word in two], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        first = _until(lambda: any(b" up" in log.read_bytes() for log in (node.root / "logs/two").glob("*.log")), begin)
        child.wait(LIMIT_SECONDS)
    run(node.arguments("delete", "container/two"))
    return running, first, held


def _until(seen: Callable[[], bool], begin: float) -> float:
    while not seen():
        if time.perf_counter() - begin > LIMIT_SECONDS:
            raise Broken("the container said nothing")
        time.sleep(0.005)
    return time.perf_counter() - begin


def _container(name: str, runtime: str, what: str) -> str:
    command = "" if runtime == "wasm" else "  command: [sh, -c, 'echo up; exec sleep 1000000']\n"
    return (
        f"apiVersion: {API}\nkind: Container\nmetadata: {{name: {name}}}\nspec:\n  image: '{what}'\n"
        f"  runtime: {runtime}\n  network: {{mode: none}}\n{command}  stop: {{signal: KILL}}\n"
    )


def _theirs(folder: Path, ref: str) -> Iterator[float]:
    """Megabytes of containerd's shim and its container, once a round."""
    if missing("ctr", "containerd"):
        return
    with ExitStack() as stack:
        peer = stack.enter_context(containerd(folder / "beside"))
        peer.pull(ref)
        for _ in range(ROUNDS):
            peer.start_many(ref, 1)
            time.sleep(SETTLE_SECONDS)
            yield sum(proc.pss_bytes(pid) for pid in _shims(os.fsencode(str(folder / "beside")))) / MEGA
            peer.remove_all()


def _shims(folder: bytes) -> Iterator[int]:
    """The shims of that containerd, and their children."""
    for pid in proc.pids():
        line = leftovers.read_bytes(f"/proc/{pid}/cmdline")
        if b"containerd-shim" in line and folder in line:
            yield pid
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                yield from map(int, task.read_text().split())
