"""containerd's version 3 to 4: what listens moves from the top of the document into plugins of its own.

Rules of this file: a block that version 4 has already is never touched: all of the old section is then without effect.
The shims' environment stays. A limit on downloads goes to the transfer service, as containerd otherwise pulls in a way
that asks no image verifier.
"""

from __future__ import annotations

from typing import Any, Final

from migrations.config.logins import save_logins
from migrations.config.mirrors import mirrors_to_hosts
from migrations.config.plugins import IMAGES, TRANSFER, VERIFIER
from migrations.config.tree import Path
from migrations.config.work import Outcome, Work

_SERVER: Final = "io.containerd.server.v1."
_OWNED: Final = ("address", "uid", "gid")
_SIZES: Final = ("max_recv_message_size", "max_send_message_size")
_TCP: Final = ("address", "tls_ca", "tls_cert", "tls_key", "tls_common_name")
_HISTOGRAM: Final = ("plugins", "io.containerd.metrics.v1.grpc-prometheus", "grpc_histogram")


def step(work: Work) -> None:
    """Change `work` from version 3 to 4; raises `BadDocument` where image verifiers would be passed by."""
    save_logins(work, ("plugins", IMAGES, "registry"))  # version 3 knows them still
    mirrors_to_hosts(work, ("plugins", IMAGES, "registry"))
    address = work.value("grpc", "address")
    owner = {key: work.value("grpc", key) or 0 for key in ("uid", "gid")}
    _ttrpc(work, address, owner)
    _grpc(work)
    if work.value("debug", "address"):
        _section(work, "debug", _OWNED, "debug")
    else:
        _drop_all(work, "debug", _OWNED, "it had no effect without an address")
    _metrics(work)
    _pulls(work)


def _section(work: Work, old: str, keys: tuple[str, ...], new: str) -> None:
    """Move keys of a section into a plugin; where that is there already they have no effect."""
    there = ("plugins", _SERVER + new)
    if work.get(*there) is not None:
        _drop_all(work, old, keys, f"{_SERVER}{new} is there, and wins")
        return
    for key in keys:
        if not work.value(old, key) and (key == "address" or not work.value(old, "address")):
            work.drop((old, key), "the default", Outcome.DEFAULT)
    for key in keys:
        work.move((old, key), (*there, key))


def _drop_all(work: Work, old: str, keys: tuple[str, ...], why: str) -> None:
    for key in keys:
        value = work.value(old, key)
        work.drop((old, key), why if value else "the default", Outcome.INERT if value else Outcome.DEFAULT)


def _grpc(work: Work) -> None:
    tcp = ("plugins", f"{_SERVER}grpc-tcp")
    has_tcp = work.get(*tcp) is not None
    sizes: dict[str, Any] = {key: work.get("grpc", key) for key in _SIZES}
    if work.value("grpc", "tcp_address") and not has_tcp:
        for key in _TCP:
            if not work.value("grpc", f"tcp_{key}"):
                work.drop(("grpc", f"tcp_{key}"), "empty", Outcome.DEFAULT)
            work.move(("grpc", f"tcp_{key}"), (*tcp, key))
        for key, node in sizes.items():
            if node is not None and node.value:
                work.add((*tcp, key), node.value, node)
    else:
        why = f"{_SERVER}grpc-tcp is there, and wins" if has_tcp else "it had no effect without tcp_address"
        _drop_all(work, "grpc", tuple(f"tcp_{key}" for key in _TCP), why)
    _section(work, "grpc", (*_OWNED, *_SIZES), "grpc")


def _ttrpc(work: Work, address: str | None, owner: dict[str, int]) -> None:
    """Version 3 made this address of grpc's when there was none; version 4 makes none."""
    there = ("plugins", f"{_SERVER}ttrpc")
    derived = not work.value("ttrpc", "address") and bool(address) and work.get(*there) is None
    _section(work, "ttrpc", _OWNED, "ttrpc")
    if not derived:
        return
    work.add((*there, "address"), f"{address}.ttrpc", work.get("grpc", "address"))
    for key, value in owner.items():
        if value and not work.value(*there, key):
            work.add((*there, key), value, work.get("grpc", key))


def _metrics(work: Work) -> None:
    _section(work, "metrics", ("address",), "metrics")
    if work.value("metrics", "grpc_histogram"):
        work.move(("metrics", "grpc_histogram"), _HISTOGRAM)
    else:
        work.drop(("metrics", "grpc_histogram"), "the default", Outcome.DEFAULT)


def _pulls(work: Work) -> None:
    """Keys of images that make containerd pull past its transfer service."""
    limit: Path = ("plugins", IMAGES, "max_concurrent_downloads")
    if work.get(*limit) is not None and work.value(*limit) != 3:
        new = ("plugins", TRANSFER, "max_concurrent_downloads")
        work.move(limit, new, how="the transfer service pulls now; said there, verifiers are asked")
    local = [
        key for key in ("discard_unpacked_layers", "image_pull_with_sync_fs") if work.value("plugins", IMAGES, key)
    ]
    if work.value("plugins", IMAGES, "disable_snapshot_annotations") is False:
        local.append("disable_snapshot_annotations")
    for key in local:
        node = work.get("plugins", IMAGES, key)
        if node is None or node.place is None:
            continue
        if work.get("plugins", VERIFIER) is not None and not work.settings.ours:
            raise node.place.bad(
                f"makes containerd pull without asking the image verifiers of {VERIFIER}",
                f"Remove {key}, or that section: containerd cannot do both.",
            )
        work.note(node, Outcome.MOVED, "containerd pulls by itself because of it, and would ask no image verifier")
