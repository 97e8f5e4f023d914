"""containerd's version 4 to our configuration, version 2.

Rules of this file: the document is walked key by key, in its order; a rule by pattern says what becomes of each. What
containerd would do anyway is left out, as what we do anyway is right. What we have no place for is dropped with what to
do instead; comments about what is left out stand at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from migrations.config import our_runtimes
from migrations.config.logins import save_logins
from migrations.config.mirrors import mirrors_to_hosts
from migrations.config.our_runtimes import CONTAINERD, RUNTIMES, Said, Source, gone, left
from migrations.config.plugins import IMAGES, LISTS, NRI, RUNTIME, SHIMS, TRANSFER, VERIFIER
from migrations.config.tree import Node, Path, Table, leaves, put
from migrations.config.work import Outcome, Work

_MOST_PARALLEL: Final = 32
_OTLP: Final = "io.containerd.tracing.processor.v1.otlp"


def step(work: Work) -> None:
    """Change `work` from version 4 to our version 2."""
    save_logins(work, ("plugins", IMAGES, "registry"))  # version 4 knows them still
    mirrors_to_hosts(work, ("plugins", IMAGES, "registry"))
    old, work.tree = work.tree, Table(explicit=True)
    source = Source(old)
    put(work.tree, ("version",), Node("version", 2))
    rest: list[str] = []
    first = next(iter(old.entries.values()), None)
    if first is not None and first.key != "version":
        work.tree.entries["version"].before, first.before = first.before, []
    for path, node in list(leaves(old)):
        if path == ("version",):
            node.before = work.tree.entries["version"].before + node.before
            work.tree.entries["version"] = node
            node.set(2)
            for origin in node.origins:  # none, when no version was written
                work.notes.pop(origin, None)
            work.note(node, Outcome.TRANSLATED, "of our configuration now")
            continue
        said = _said(source, path, node, work)
        if said.to is None:
            rest += [line for line in node.comments() if line]
            work.note(node, said.outcome, said.why)
        else:
            program = node.value
            _put(work, said, node)
            if said.value == "shim" and str(program).startswith("/"):  # a type that is the shim's program
                work.add((*said.to[:-1], "path"), program, node)
    rest += [line for line in _headers(old) if line]
    work.tree.end += [*(["", "# From the configuration before, about what is not here:"] if rest else []), *rest]
    work.tree.end += [line for line in old.end if line]
    work.version = 2


def _put(work: Work, said: Said, node: Node) -> None:
    if said.to is None:
        return
    if said.value != node.value or node.raw:
        node.set(said.value)
    if said.outcome is not Outcome.MOVED:
        work.note(node, said.outcome, said.why)
    put(work.tree, said.to, node)


def _headers(table: Table) -> list[str]:
    """Comments above headers of tables, which have no counterpart."""
    found = []
    for node in table.entries.values():
        if node.table is not None and node.table.entries:
            found += [*node.before, *([node.after] if node.after else []), *_headers(node.table), *node.table.end]
    return found


def _said(source: Source, path: Path, node: Node, work: Work) -> Said:
    known = [work.notes[origin] for origin in node.origins if origin in work.notes]
    if any(note.outcome is Outcome.DEFAULT for note in known) or node.value in ("", []):
        return left(Outcome.DEFAULT, "says what holds without it")
    if isinstance(node.value, Table):
        return left(Outcome.DEFAULT, "an empty table")
    for pattern, rule in RULES:
        if _fits(pattern, path):
            return rule(source, path, node.value) if callable(rule) else gone(rule)
    return gone("there is nothing of the kind here")


def _fits(pattern: Path, path: Path) -> bool:
    """Whether a path begins as the pattern; `*` is any one key."""
    return len(path) >= len(pattern) and all(p in ("*", part) for p, part in zip(pattern, path, strict=False))


def _moved(*to: str) -> Callable[[Source, Path, Any], Said]:
    return lambda source, path, value: Said(to, value, Outcome.MOVED, "")


def _folder(*to: str) -> Callable[[Source, Path, Any], Said]:
    """A folder or a list of such; ours must be absolute."""

    def rule(source: Source, path: Path, value: Any) -> Said:
        folders = value if isinstance(value, list) else [value]
        if all(folder.startswith("/") for folder in folders):
            return Said(to, value, Outcome.MOVED, "")
        return gone(f"is no absolute path: write one at {'.'.join(to)}")

    return rule


def _snapshotter(source: Source, path: Path, value: Any) -> Said:
    if value in ("overlayfs", "native"):
        return Said(("snapshots", "default"), value, Outcome.MOVED, "")
    return gone(f"there is no snapshotter {value!r} here: overlayfs is used; images are unpacked anew")


def _parallel(source: Source, path: Path, value: Any) -> Said:
    count = value if 1 <= value <= _MOST_PARALLEL else _MOST_PARALLEL
    outcome = Outcome.MOVED if count == value else Outcome.TRANSLATED
    why = "" if count == value else f"1 to {_MOST_PARALLEL} here; {value} had no limit, or more"
    return Said(("transfer", "parallel"), count, outcome, why)


def _hosts(source: Source, path: Path, value: Any) -> Said:
    folders = [folder for folder in value.split(":") if folder.startswith("/")]
    return Said(("transfer", "hosts"), folders, Outcome.TRANSLATED, "a list here, read as before")


def _endpoint(source: Source, path: Path, value: Any) -> Said:
    protocol = source.values.get(("plugins", _OTLP, "protocol")) or "http/protobuf"
    url = value if "://" in value else f"http://{value}"
    if protocol == "grpc":
        why = "OTLP goes over HTTP here: the collector's HTTP port (4318, mostly) is to be named"
        return Said(("telemetry", "endpoint"), url.replace(":4317", ":4318"), Outcome.TRANSLATED, why)
    return Said(("telemetry", "endpoint"), url, Outcome.MOVED if url == value else Outcome.TRANSLATED, "a URL here")


def _pause(source: Source, path: Path, value: Any) -> Said:
    return left(Outcome.DEFAULT, "sandboxes need no image here, whichever it was")


def _nri(source: Source, path: Path, value: Any) -> Said:
    if source.values.get(("plugins", NRI, "disable")) is True:
        return left(Outcome.DEFAULT, "NRI was off, as it is here")
    if path[-1] == "disable":
        return gone("NRI was on; its plugins are not called here: say what they do in manifests")
    return gone("NRI plugins are not called here")


def _listed(source: Source, path: Path, value: Any) -> Said:
    return gone("there are no plugins to turn on or off here: a mechanism that nothing asks for does nothing")


Rule = str | Callable[[Source, Path, Any], Said]

_ENCRYPTED: Final = "encrypted layers are not opened here: publish images that are not encrypted"
_NO_DRIVER: Final = "there is no such snapshotter here: overlayfs is used"
_NO_SOCKET: Final = "there is no socket for clients: desired state comes in as manifests"
_PER_IMAGE: Final = "said by each Image: spec.snapshotter"
_RESTART: Final = "each container has a restart policy with a back-off of its own: spec.restart"
_SECURITY_KEYS: Final = ("disable_apparmor", "enable_selinux", "selinux_category_range", "unset_seccomp_profile")
_SECURITY: Final = "said by each Container: spec.security"

RULES: Final[tuple[tuple[Path, Rule], ...]] = (
    (("root",), _folder("root")),
    (("state",), _folder("state")),
    (("temp",), "temporary files lie below root"),
    (("oom_score",), "say OOMScoreAdjust= in the agent's unit (systemctl edit reconciler)"),
    (("cgroup",), "say Slice= in the agent's unit (systemctl edit reconciler)"),
    (("imports",), "their content is here; write drop-ins of our kind by hand"),
    *(((key,), _listed) for key in LISTS),
    (("debug",), "say what to log by the agent's own options and OTEL_* variables"),
    (("timeouts",), "time limits are the agent's own"),
    (("proxy_plugins",), "plugins behind a socket are not used here: an Image's snapshotter is overlayfs or native"),
    (("stream_processors",), _ENCRYPTED),
    (("plugins", IMAGES, "snapshotter"), _snapshotter),
    (("plugins", IMAGES, "max_concurrent_downloads"), _parallel),
    (("plugins", TRANSFER, "max_concurrent_downloads"), _parallel),
    (("plugins", TRANSFER), "layers are applied by as many workers as there are processors"),
    (("plugins", IMAGES, "registry", "config_path"), _hosts),
    (("plugins", IMAGES, "registry", "headers"), "write them as [header] in the hosts.toml of each registry"),
    (("plugins", IMAGES, "registry"), "write it as a hosts.toml"),
    (("plugins", IMAGES, "pinned_images", "sandbox"), _pause),
    (("plugins", IMAGES, "pinned_images"), "images in use are never collected: name it in an Image"),
    (("plugins", IMAGES, "runtime_platforms"), _PER_IMAGE),
    (
        ("plugins", IMAGES, "image_decryption"),
        _ENCRYPTED,
    ),
    (
        ("plugins", IMAGES, "image_pull_progress_timeout"),
        "a transfer that stands still is broken off, then gone on with",
    ),
    (
        ("plugins", IMAGES, "discard_unpacked_layers"),
        "packed layers are kept for rollbacks; gc collects them",
    ),
    (("plugins", IMAGES), "images are transferred in one way only"),
    (("plugins", RUNTIME, "cni", "conf_dir"), _folder("network", "lists")),
    (("plugins", RUNTIME, "cni", "bin_dirs"), _folder("network", "plugins")),
    (("plugins", RUNTIME, "cni"), "a sandbox names its networks: spec.network"),
    ((*CONTAINERD, "default_runtime_name"), our_runtimes.default_runtime),
    ((*RUNTIMES, "*", "runtime_type"), our_runtimes.runtime_type),
    ((*RUNTIMES, "*", "options", "BinaryName"), our_runtimes.binary),
    ((*RUNTIMES, "*", "options"), our_runtimes.option),
    ((*RUNTIMES, "*", "sandboxer"), our_runtimes.sandboxer),
    ((*RUNTIMES, "*", "snapshotter"), _PER_IMAGE),
    ((*RUNTIMES, "*", "runtime_path"), our_runtimes.runtime_path),
    ((*RUNTIMES, "*", "base_runtime_spec"), "a Container's spec says all of it"),
    ((*RUNTIMES, "*", "cni_conf_dir"), "a sandbox names its networks: spec.network"),
    (RUNTIMES, "a Container's spec says what is special about it"),
    (CONTAINERD, "a Container's spec says what is special about it"),
    *((("plugins", RUNTIME, key), _SECURITY) for key in _SECURITY_KEYS),
    (("plugins", RUNTIME, "max_container_log_line_size"), "said by each Container: spec.log"),
    (("plugins", RUNTIME), "a Container's spec says what is special about it"),
    (("plugins", "io.containerd.grpc.v1.cri"), "the kubelet does not talk to us; exec and logs are our own commands"),
    (("plugins", NRI), _nri),
    (("plugins", SHIMS), "shims get the agent's environment: say Environment= in its unit (systemctl edit reconciler)"),
    (("plugins", VERIFIER), "no programs are asked about images: pin an Image by its digest"),
    (("plugins", "io.containerd.monitor.container.v1.restart"), _RESTART),
    (("plugins", _OTLP, "endpoint"), _endpoint),
    (("plugins", _OTLP), "say it by the standard OTEL_EXPORTER_OTLP_* variables"),
    (("plugins", "io.containerd.internal.v1.tracing"), "say it by OTEL_SERVICE_NAME and OTEL_TRACES_SAMPLER(_ARG)"),
    (("plugins", "io.containerd.server.v1.metrics"), "metrics are sent, not fetched: set telemetry.endpoint"),
    (("plugins", "io.containerd.metrics.v1.grpc-prometheus"), "metrics are sent, not fetched: set telemetry.endpoint"),
    (("plugins", "io.containerd.monitor.task.v1.cgroups"), "metrics are sent, not fetched: set telemetry.endpoint"),
    (("plugins", "io.containerd.gc.v1.scheduler"), "collection goes by time: gc.interval"),
    *((("plugins", f"io.containerd.snapshotter.v1.{name}"), _NO_DRIVER) for name in ("devmapper", "btrfs", "zfs")),
    (("plugins", "io.containerd.snapshotter.v1.overlayfs"), "snapshots lie below root; how they are mounted is fixed"),
    (("plugins", "io.containerd.snapshotter.v1.native"), "snapshots lie below root"),
    (("plugins", "io.containerd.internal.v1.opt"), "programs of the node are not managed here"),
    *((("plugins", f"io.containerd.server.v1.{name}"), _NO_SOCKET) for name in ("grpc", "grpc-tcp", "ttrpc", "debug")),
    (("grpc",), _NO_SOCKET),
    (("ttrpc",), _NO_SOCKET),
)
