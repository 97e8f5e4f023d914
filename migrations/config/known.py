"""What containerd knows: its keys, their defaults, and by those their types.

Rules of this file: literal tables; `*` stands for any name; an empty dict is a table whose keys are free or listed
apart. The value that Go gives what nobody set (0, false, "", []) is a default too, unless the table says another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from migrations.config.plugins import CRI, IMAGES, RUNTIME, SHIMS, TASK, TRANSFER, VERIFIER, long_name
from migrations.config.tree import Node, Path, Rows, Table
from migrations.config.work import Outcome, Work

_OWNED: Final = {"address": "", "uid": 0, "gid": 0}
_SIZES: Final = {"max_recv_message_size": 16777216, "max_send_message_size": 16777216}


def _decoder(takes: str, gives: str) -> dict[str, Any]:
    """A stream processor that containerd 1 names without being asked."""
    layer, folder = "application/vnd.oci.image.layer.v1.tar", "/etc/containerd/ocicrypt"
    return {
        "accepts": [layer + takes],
        "returns": layer + gives,
        "path": "ctd-decoder",
        "args": ["--decryption-keys-path", f"{folder}/keys"],
        "env": [f"OCICRYPT_KEYPROVIDER_CONFIG={folder}/ocicrypt_keyprovider.conf"],
    }


TOP: Final[Mapping[str, Any]] = {
    "version": 0,
    "root": "/var/lib/containerd",
    "state": "/run/containerd",
    "temp": "",
    "plugin_dir": "",
    "oom_score": 0,
    "disabled_plugins": [],
    "required_plugins": [],
    "imports": [],
    "no_subreaper": False,
    "subreaper": False,
    "debug": {**_OWNED, "level": "", "format": "", "log_trace_id": False},
    "grpc": {
        **_OWNED,
        **_SIZES,
        "address": "/run/containerd/containerd.sock",
        **{f"tcp_{name}": "" for name in ("address", "tls_ca", "tls_cert", "tls_key", "tls_common_name")},
    },
    "ttrpc": _OWNED,
    "metrics": {"address": "", "grpc_histogram": False},
    "cgroup": {"path": ""},
    "timeouts": {
        "io.containerd.timeout.bolt.open": "0s",
        "io.containerd.timeout.shim.cleanup": "5s",
        "io.containerd.timeout.shim.load": "5s",
        "io.containerd.timeout.shim.shutdown": "3s",
        "io.containerd.timeout.task.state": "2s",
        "*": "",
    },
    "proxy_plugins": {"*": {"type": "", "address": "", "platform": "", "exports": {}, "capabilities": []}},
    "stream_processors": {
        "io.containerd.ocicrypt.decoder.v1.tar": _decoder("+encrypted", ""),
        "io.containerd.ocicrypt.decoder.v1.tar.gzip": _decoder("+gzip+encrypted", "+gzip"),
        "*": {"accepts": [], "returns": "", "path": "", "args": [], "env": []},
    },
}

_RUNTIME_OPTIONS: Final = {
    **dict.fromkeys(("BinaryName", "CriuImagePath", "CriuPath", "CriuWorkPath", "Root", "ShimCgroup"), ""),
    **dict.fromkeys(("NoNewKeyring", "NoPivotRoot", "SystemdCgroup"), False),
    "IoGid": 0,
    "IoUid": 0,
}
ONE_RUNTIME: Final = {
    **dict.fromkeys(("base_runtime_spec", "cni_conf_dir", "runtime_engine", "runtime_path", "runtime_root"), ""),
    **dict.fromkeys(("sandbox_mode", "sandboxer", "snapshotter", "snapshot", "runtime_type"), ""),
    "io_type": "",
    "cni_max_conf_num": 0,
    "container_annotations": [],
    "pod_annotations": [],
    "privileged_without_host_devices": False,
    "privileged_without_host_devices_all_devices_allowed": False,
    "cgroup_writable": False,
    "options": _RUNTIME_OPTIONS,
}
_CONTAINERD_OF_RUNTIME: Final = {
    "default_runtime_name": "runc",
    "ignore_blockio_not_enabled_errors": False,
    "ignore_rdt_not_enabled_errors": False,
    "no_pivot": False,
    "default_runtime": ONE_RUNTIME,
    "untrusted_workload_runtime": ONE_RUNTIME,
    "runtimes": {"*": ONE_RUNTIME},
}
_OF_STORE: Final = {
    "snapshotter": "overlayfs",
    "disable_snapshot_annotations": True,
    "discard_unpacked_layers": False,
}
_LOGIN: Final = {"username": "", "password": "", "auth": "", "identitytoken": ""}
REGISTRY: Final = {
    "config_path": "",
    "mirrors": {"*": {"endpoint": []}},
    "configs": {
        "*": {
            "auth": _LOGIN,
            "tls": {"ca_file": "", "cert_file": "", "key_file": "", "insecure_skip_verify": False},
        }
    },
    "auths": {"*": _LOGIN},
    "headers": {"*": []},
}
_OF_IMAGES: Final = {
    "registry": REGISTRY,
    "image_decryption": {"key_model": "node"},
    "max_concurrent_downloads": 3,
    "image_pull_progress_timeout": "5m0s",
    "image_pull_with_sync_fs": False,
    "stats_collect_period": 10,
}
STREAMING: Final = {
    "disable_tcp_service": True,
    "stream_server_address": "127.0.0.1",
    "stream_server_port": "0",
    "stream_idle_timeout": "4h0m0s",
    "enable_tls_streaming": False,
    "x509_key_pair_streaming": {"tls_cert_file": "", "tls_key_file": ""},
}
_OF_RUNTIME: Final = {
    **dict.fromkeys(("device_ownership_from_security_context", "disable_apparmor", "disable_proc_mount"), False),
    **dict.fromkeys(("enable_selinux", "enable_unprivileged_icmp", "enable_unprivileged_ports"), False),
    **dict.fromkeys(("ignore_image_defined_volumes", "netns_mounts_under_state_dir", "enable_cdi"), False),
    "restrict_oom_score_adj": False,
    "disable_hugetlb_controller": True,
    "tolerate_missing_hugetlb_controller": True,
    "max_container_log_line_size": 16384,
    "selinux_category_range": 1024,
    "unset_seccomp_profile": "",
    "cdi_spec_dirs": ["/etc/cdi", "/var/run/cdi"],
    "drain_exec_sync_io_timeout": "0s",
    "ignore_deprecation_warnings": [],
}
_CNI: Final = {
    "bin_dir": "/opt/cni/bin",
    "bin_dirs": ["/opt/cni/bin"],
    "conf_dir": "/etc/cni/net.d",
    "conf_template": "",
    "ip_pref": "",
    "max_conf_num": 1,
    "setup_serially": False,
}

PLUGINS: Final[Mapping[str, Any]] = {
    CRI: {
        **_OF_IMAGES,
        **_OF_RUNTIME,
        **STREAMING,
        "sandbox_image": None,
        "systemd_cgroup": False,
        "disable_cgroup": False,
        "cni": _CNI,
        "containerd": {**_OF_STORE, **_CONTAINERD_OF_RUNTIME},
    },
    IMAGES: {
        **_OF_IMAGES,
        **_OF_STORE,
        "pinned_images": {"*": None},
        "runtime_platforms": {"*": {"platform": "", "snapshotter": ""}},
        "use_local_image_pull": False,
    },
    RUNTIME: {**_OF_RUNTIME, "cni": _CNI, "containerd": _CONTAINERD_OF_RUNTIME},
    TASK: {"platforms": ["linux/amd64"], "sched_core": False},
    SHIMS: {"env": [], "socket_dir": ""},
    TRANSFER: {"max_concurrent_downloads": 3, "max_concurrent_uploaded_layers": 3, "max_concurrent_unpacks": 1},
    VERIFIER: {
        "bin_dir": "/opt/containerd/image-verifier/bin",
        "max_verifiers": 10,
        "per_verifier_timeout": "10s",
    },
    "io.containerd.gc.v1.scheduler": {
        "deletion_threshold": 0,
        "mutation_threshold": 100,
        "pause_threshold": 0.02,
        "schedule_delay": "0s",
        "startup_delay": "100ms",
    },
    "io.containerd.internal.v1.opt": {"path": "/opt/containerd"},
    "io.containerd.internal.v1.restart": {"interval": "10s"},
    "io.containerd.monitor.container.v1.restart": {"interval": "10s"},
    "io.containerd.internal.v1.tracing": {"service_name": "containerd", "sampling_ratio": 1.0},
    "io.containerd.tracing.processor.v1.otlp": {"endpoint": "", "protocol": "", "insecure": False},
    "io.containerd.metadata.v1.bolt": {"content_sharing_policy": "shared"},
    "io.containerd.monitor.v1.cgroups": {"no_prometheus": False},
    "io.containerd.monitor.task.v1.cgroups": {"no_prometheus": False},
    "io.containerd.runtime.v1.linux": {
        "no_shim": False,
        "runtime": "runc",
        "runtime_root": "",
        "shim": "containerd-shim",
        "shim_debug": False,
    },
    "io.containerd.service.v1.diff-service": {"default": ["walking"], "sync_fs": False},
    "io.containerd.service.v1.tasks-service": {"rdt_config_file": "", "blockio_config_file": ""},
    **{f"io.containerd.snapshotter.v1.{name}": {"root_path": ""} for name in ("aufs", "blockfile", "btrfs", "native")},
    "io.containerd.snapshotter.v1.zfs": {"root_path": ""},
    "io.containerd.snapshotter.v1.overlayfs": {
        "root_path": "",
        "upperdir_label": False,
        "sync_remove": False,
        "slow_chown": False,
        "mount_options": [],
    },
    "io.containerd.snapshotter.v1.devmapper": {
        **dict.fromkeys(("root_path", "pool_name", "base_image_size", "fs_type", "fs_options"), ""),
        **dict.fromkeys(("async_remove", "discard_blocks"), False),
    },
    "io.containerd.nri.v1.nri": {
        "disable": None,
        "disable_connections": False,
        "plugin_config_path": "/etc/nri/conf.d",
        "plugin_path": "/opt/nri/plugins",
        "plugin_registration_timeout": "5s",
        "plugin_request_timeout": "2s",
        "socket_path": "/var/run/nri/nri.sock",
    },
    "io.containerd.server.v1.grpc": {**_OWNED, **_SIZES, "address": "/run/containerd/containerd.sock"},
    "io.containerd.server.v1.grpc-tcp": {"address": "", **_SIZES},
    "io.containerd.server.v1.ttrpc": {**_OWNED, "address": "/run/containerd/containerd.sock.ttrpc"},
    "io.containerd.server.v1.debug": _OWNED,
    "io.containerd.server.v1.metrics": {"address": ""},
    "io.containerd.metrics.v1.grpc-prometheus": {"grpc_histogram": False},
}

_FREE: Final = object()


def known(path: Path) -> Any:
    """The default of the key at `path`, plugins by their whole ids; a dict for a table; `_FREE` where nothing is
    known."""
    at: Any = TOP
    if path[:1] == ("plugins",):
        if len(path) == 1:
            return {}
        at, path = PLUGINS.get(path[1], {"*": _FREE}), path[2:]
    for part in path:
        if not isinstance(at, Mapping):
            return _FREE
        at = at.get(part, at.get("*", _FREE))
    return at


def is_default(path: Path, value: Any) -> bool:
    """Whether `value` at `path` says what holds anyway; never for what containerd has no fixed default for."""
    default = known(path)
    if isinstance(value, Table):
        return not value.entries
    if default is None or path == ("version",):
        return False
    if value == default and isinstance(value, bool) == isinstance(default, bool):
        return True
    return not default and value in ("", 0, False, [])


def _whole(path: Path) -> Path:
    """A path with its plugin's whole id."""
    return (path[0], long_name(path[1])[0], *path[2:]) if path[:1] == ("plugins",) and len(path) > 1 else path


def check_types(work: Work) -> None:
    """Raise `BadDocument`, with its place, for a key whose value cannot be."""
    for path, node in _nodes(work.tree, ()):
        _check(_whole(path), node)


def _nodes(table: Table, at: Path) -> Iterator[tuple[Path, Node]]:
    for key, node in table.entries.items():
        yield (*at, key), node
        if node.table is not None:
            yield from _nodes(node.table, (*at, key))


_WORDS: Final = {
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list of texts",
    dict: "a table",
}


def _check(path: Path, node: Node) -> None:
    default = known(path)
    plugin = path[0] == "plugins" and len(path) <= 2
    if (default is _FREE and not plugin) or default is None or node.place is None:
        return
    due = dict if plugin or isinstance(default, Mapping) else type(default)
    is_table, value = node.table is not None, node.value
    if due is dict:
        fits = is_table
    elif due in (int, float):
        fits = isinstance(value, int | due) and not isinstance(value, bool)
    elif due is list:
        fits = isinstance(value, list) and not isinstance(value, Rows) and all(isinstance(one, str) for one in value)
    else:
        fits = isinstance(value, due)
    if not fits:
        raise node.place.bad(f"must be {_WORDS[due]}")


def tell_defaults(work: Work) -> None:
    """Note the keys that say what holds anyway, and those that containerd has no use for."""
    for written, node in list(_nodes(work.tree, ())):
        if not node.origins or isinstance(node.value, Rows):
            continue
        path = _whole(written)
        if known(path) is _FREE and path[0] != "plugins":
            work.note(node, Outcome.INERT, "containerd knows no such key")
        elif is_default(path, node.value):
            work.note(node, Outcome.DEFAULT, "says what holds without it")
