"""Pull and unpack of a big image, each tool with an empty store, the registry on loopback and in the page cache."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.bench.ground import (
    Broken,
    alternate,
    fresh_disk,
    fresh_node,
    image,
    missing,
    objects,
    quiet_disk,
    timed,
    write,
)
from tests.bench.peers import containerd, podman_pull
from tests.bench.report import Row

ROUNDS: Final = 3
WHAT: Final = "pull and unpack {size}, cold store"
HOW: Final = (
    "`reconciler apply` of one Image as a whole process, in an empty root, without an agent; it ends when the image is "
    "on disk (syncfs). Each turn has a new ext4 and begins when the disk is quiet (sync). "
)
HOW_PEER: Final = {
    "ctr": "`ctr images pull --plain-http` of a private containerd that is up already (overlayfs, no CRI plugin).",
    "podman": "`podman pull --tls-verify=false` with `--root` and `--runroot` of its own (overlay).",
}
HOW_SYNC: Final = "the same runs, the peer's time with the `sync` after it that ours contains."


def measure(folder: Path, ref: str, layout: Path) -> list[Row]:
    """Rows against ctr and podman: as the tools end, and with the peer's writing out counted as ours is."""
    reasons = {"ctr": missing("ctr", "containerd"), "podman": missing("podman")}
    turns: dict[str, Callable[[], tuple[float, ...]]] = {
        "ours": lambda: _ours(folder, ref),
        "ctr": lambda: _ctr(folder, ref),
        "podman": lambda: _podman(folder, ref),
    }
    seen = alternate(ROUNDS, {name: turn for name, turn in turns.items() if not reasons.get(name)})
    ours = tuple(one[0] for one in seen["ours"])
    what = WHAT.format(size=size_of(layout))
    rows = []
    for peer, reason in reasons.items():
        how = HOW + HOW_PEER[peer]
        if reason:
            rows.append(Row(what, peer=peer, goal=1.0, skipped=reason))
            continue
        rows.append(Row(what, "s", ours, peer, tuple(one[0] for one in seen[peer]), goal=1.0, how=how))
        rows.append(Row(what, "s", ours, f"{peer}, then sync", tuple(sum(one) for one in seen[peer]), how=HOW_SYNC))
    return rows


def _ours(folder: Path, ref: str) -> tuple[float, ...]:
    with fresh_disk(folder / "ours") as disk, fresh_node(disk) as node:
        path = write(node, [image("big", ref)], "big")
        quiet_disk()
        took = timed(node.arguments("apply", "-f", path))
        (seen,) = objects(node, "image")
        if not any(one["type"] == "Ready" and one["status"] == "True" for one in seen["status"]["conditions"]):
            raise Broken(f"the image is not Ready: {seen['status']}")
        return (took,)


def _ctr(folder: Path, ref: str) -> tuple[float, ...]:
    with fresh_disk(folder / "ctr") as disk, containerd(disk / "store") as peer:
        quiet_disk()
        return peer.pull(ref), _sync()


def _podman(folder: Path, ref: str) -> tuple[float, ...]:
    with fresh_disk(folder / "podman") as disk, podman_pull(disk / "store", ref) as took:
        return took, _sync()


def _sync() -> float:
    begin = time.perf_counter()
    quiet_disk()
    return time.perf_counter() - begin


def size_of(layout: Path) -> str:
    """How big the image in an OCI layout is: compressed, unpacked (the sum of its tars), and in how many layers."""

    def blob(digest: str) -> Path:
        return layout / "blobs" / digest.replace(":", "/")

    index = json.loads((layout / "index.json").read_text())
    layers = json.loads(blob(index["manifests"][0]["digest"]).read_text())["layers"]
    packed = sum(layer["size"] for layer in layers)
    unpacked = sum(_unpacked(blob(layer["digest"])) for layer in layers)
    return f"{packed / 1e6:.0f} MB ({unpacked / 1e6:.0f} MB of tar in {len(layers)} layers)"


def _unpacked(layer: Path) -> int:
    """The length of a gzip file's content modulo 4 GiB: its last four bytes (RFC 1952)."""
    with layer.open("rb") as source:
        source.seek(-4, 2)
        return int.from_bytes(source.read(4), "little")
