"""A node with an agent on it that a whole module of tests shares, and the words to speak to it with.

Every test uses names of its own, so that tests neither disturb nor wait for each other; when the module is over
everything is deleted and the universal checker looks for what is left.
"""

import io
import json
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from reconciler.model.identity import Key
from reconciler.model.objects import Object
from reconciler.places import Paths
from reconciler.store.port import ObjectStore
from reconciler.wiring import open_store
from tests import leftovers
from tests.conftest import Node
from tests.fakes.images import described
from tests.registry import Registry, image_layouts
from tests.runtimes import RUNTIMES, program

WAIT: Final = 20.0
SETTLE: Final = 5.0
LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
Spec = Mapping[str, Any]


def document(kind: str, name: str, spec: Spec, **metadata: Any) -> dict[str, Any]:
    """One document of a manifest."""
    return {"apiVersion": "reconciler/v1", "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}


def eventually(look: Callable[[], Any], what: str, seconds: float = WAIT) -> Any:
    """The first true answer of `look`; fails the test, with the last answer, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := look()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}; last seen: {answer!r}"
        time.sleep(0.03)
    return answer


@dataclass(slots=True)
class Stage:
    """A node with its agent, a registry, and a folder for manifests."""

    node: Node
    registry: Registry
    files: Path
    runtime: str = "runc"
    """The default one of this node."""
    store: ObjectStore = field(init=False)
    count: int = 0

    def open(self) -> None:
        """Open the store beside the agent, as the command line does."""
        found = open_store(Paths(self.node.root, self.node.state), create=True)
        assert found is not None
        self.store = found

    def image(self, name: str = "busybox") -> str:
        """The reference of an image in the registry."""
        return f"{self.registry.host}/{name}:latest"

    def write(self, *documents: dict[str, Any]) -> Path:
        """A new manifest file with these documents."""
        self.count += 1
        path = self.files / f"{self.count}.yaml"
        path.write_text("---\n".join(json.dumps(one, indent=1) + "\n" for one in documents))
        return path

    def apply(self, *documents: dict[str, Any], options: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
        """`apply` of these documents, whatever comes of it."""
        return self.node.cli("apply", "--timeout", "30s", *options, "-f", self.write(*documents))

    def must_apply(self, *documents: dict[str, Any], options: tuple[str, ...] = ()) -> str:
        """`apply`, which must end with 0; gives what it said."""
        done = self.apply(*documents, options=options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit(self, *documents: dict[str, Any]) -> None:
        """`apply` without waiting."""
        self.must_apply(*documents, options=("--no-wait",))

    def container(self, name: str, script: str = "", **spec: Any) -> dict[str, Any]:
        """A container of busybox without a network, by default; with `script` it runs that in a shell.

        It is killed when it is to stop: a shell as first process would sit out the grace.
        """
        whole: dict[str, Any] = {"image": self.image(), "stop": {"signal": "KILL"}, **spec}
        if "sandbox" not in whole:
            whole.setdefault("network", {"mode": "none"})
        if script:
            whole["command"] = ["sh", "-c", script]
        return document("Container", name, whole)

    def said(self, name: str, script: str, *others: dict[str, Any], **spec: Any) -> str:
        """What a container's script writes, run once to its end, which must be 0."""
        once = {"restart": {"policy": "Never"}, **spec}
        self.must_apply(*others, self.container(name, script, **once))
        status = self.exited(name)
        done = self.node.cli("logs", name)
        assert (status["state"], status["exitCode"]) == ("Exited", 0), (status, done)
        return done.stdout + done.stderr

    def get(self, key: str) -> Object | None:
        """The object `kind/name` as the store has it now."""
        return self.store.get(Key.parse(key))

    def there(self, key: str) -> Object:
        """The object `kind/name`, which must be there."""
        found = self.get(key)
        assert found is not None, f"{key} is not there"
        return found

    def status(self, key: str) -> Mapping[str, Any]:
        """The status of an object that must be there."""
        return self.there(key).status

    def exited(self, name: str) -> Mapping[str, Any]:
        """The status of a container once it has ended by itself and is not to run again."""
        key = f"container/{name}"
        eventually(lambda: self.status(key).get("state") == "Exited", f"{name} ends")
        return self.status(key)

    def pid(self, name: str) -> int:
        """The running container's first process; waits for it."""
        found = eventually(lambda: self.status(f"container/{name}").get("pid"), f"{name} runs")
        assert isinstance(found, int)
        return found

    def exec(self, name: str, script: str) -> str:
        """What a shell in a running container says; its exit code must be 0."""
        done = self.node.cli("exec", name, "--", "sh", "-c", script)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def condition(self, key: str, kind: str) -> Mapping[str, Any]:
        """A condition of an object; empty while it is not there."""
        obj = self.get(key)
        conditions = obj.status.get("conditions", ()) if obj is not None else ()
        return next((one for one in conditions if one["type"] == kind), {})

    def delete(self, *keys: str) -> None:
        """Delete, and wait until it is gone."""
        done = self.node.cli("delete", *keys, "--timeout", "30s")
        assert done.returncode == 0, done.stdout + done.stderr

    def odd_image(
        self,
        name: str,
        config: Mapping[str, Any],
        files: Mapping[str, tuple[int, int, bytes]],
        registry: Registry | None = None,
    ) -> str:
        """Push busybox with one more layer (`path: (owner, mode, content)`, a folder with a final slash)."""
        layout = self.files / f"image-{name}"
        shutil.copytree(image_layouts("busybox")[0], layout)
        blobs = layout / "blobs" / "sha256"
        index = json.loads((layout / "index.json").read_text())
        manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_bytes())
        old = json.loads((blobs / manifest["config"]["digest"][7:]).read_bytes())
        layer = _keep(blobs, _tar(files), LAYER)
        old["rootfs"]["diff_ids"].append(layer["digest"])
        old["history"].append({"created_by": "test"})
        old["config"] |= config
        manifest["layers"].append(layer)
        manifest["config"] = _keep(blobs, json.dumps(old).encode(), CONFIG)
        entry = _keep(blobs, json.dumps(manifest).encode(), MANIFEST)
        entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
        (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        return (registry or self.registry).push(layout, f"{name}:latest")


def _keep(blobs: Path, data: bytes, media_type: str) -> dict[str, Any]:
    entry = described(data, media_type)
    (blobs / str(entry["digest"])[7:]).write_bytes(data)
    return entry


def _tar(files: Mapping[str, tuple[int, int, bytes]]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for path, (owner, mode, content) in files.items():
            info = tarfile.TarInfo(path.rstrip("/"))
            info.type = tarfile.DIRTYPE if path.endswith("/") else tarfile.REGTYPE
            info.uid = info.gid = owner
            info.mode, info.size, info.mtime = mode, len(content), 1_700_000_000
            tar.addfile(info, io.BytesIO(content))
    return sink.getvalue()


@contextmanager
def stage(
    registry: Registry,
    runtime: str = "runc",
    *,
    agent: bool = True,
    config: Mapping[str, Any] = MappingProxyType({}),
    more: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Stage]:
    """A stage for a module of tests; ends by deleting everything, stopping the agent and looking for leftovers.

    `runtime` is what containers get that name none; every runtime of `RUNTIMES` is there by its name. `config`:
    more of the node's configuration; `more`: runtimes beside those.
    """
    place = leftovers.Place(Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp")))
    files = place.folder / "files"
    files.mkdir()
    made = Stage(Node(place), registry, files, runtime)
    programs = {name: {"path": program(name, place.folder / "runtimes")} for name in RUNTIMES}
    file = place.folder / "config.yaml"
    file.write_text(json.dumps({"version": 2, "runtimes": {**programs, **more}, "defaultRuntime": runtime, **config}))
    made.node.env["RECONCILER_CONFIG"] = str(file)
    try:
        made.open()
        if agent:
            made.node.spawn("agent")
        yield made
        keys = [f"{kind}/{obj.name}" for obj in made.store.list() if (kind := obj.kind.value.lower()) not in OURS]
        owned = {str(obj.key) for obj in made.store.list() if obj.owners}
        if keys := [key for key in keys if key not in owned]:
            done = made.node.cli("delete", *keys, "--purge", "--timeout", "40s")
            assert done.returncode == 0, done.stdout + done.stderr
        made.store.close()
        made.node.stop()
        left = leftovers.settle(place, SETTLE)
        assert left == [], left
    finally:
        leftovers.clean(place)


OURS: Final = ("node", "snapshot")
"""Kinds that the agent makes itself."""
