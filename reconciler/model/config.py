"""The agent's configuration, version 2, as a model: what the machine decides, beside what manifests ask for.

Rules of this file: every field has a default, so that no configuration is a configuration; a path is absolute; nothing
secret is in it, only where it lies. What a field means is its `description`, what a section is for its docstring, and
neither stands anywhere else: `config default`, the schema and docs/configuration.md are made of them. A float is a
duration. `AFTER_RESTART` marks what a running agent cannot take up; everything else is in force as soon as the file is
read again.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field
from pydantic.config import JsonDict

from reconciler.model.kinds.base import Listed, Spec
from reconciler.model.kinds.quantities import Seconds
from reconciler.model.kinds.texts import AbsolutePath, LabelKey, LabelValue, Name
from reconciler.model.problems import Wrong

RESTART: Final = "x-after-restart"
"""The mark of a field that a running agent does not take up, in the JSON Schema too."""
AFTER_RESTART: Final[JsonDict] = {RESTART: True}


class NodeConfig(Spec):
    """Who this node is."""

    name: Name | None = Field(
        None, description="The node's name. Left out: its host name.", json_schema_extra=AFTER_RESTART
    )
    labels: dict[LabelKey, LabelValue] = Field(
        {}, description="What `${node.labels.…}` in manifests, `valueFrom: {node: labels.…}` and rollouts ask for."
    )


class GitConfig(Spec):
    """How git is reached, for every Source. No home folder is looked into."""

    ssh_key: AbsolutePath | None = Field(
        None, alias="sshKey", description="A file with the private key for Sources whose Secret gives none."
    )
    known_hosts: AbsolutePath | None = Field(
        None, alias="knownHosts", description="A file of known hosts. Left out: a host's key is pinned at first sight."
    )
    ca: AbsolutePath | None = Field(None, description="A file of certificate authorities to trust for https.")
    timeout: Seconds = Field(120.0, description="How long one fetch may take.")
    allow_file: bool = Field(
        False,
        alias="allowFile",
        description="Whether a Source that comes out of another Source may name `file:` and folders of the node.",
    )


class SourcesConfig(Spec):
    """What all Sources share."""

    git: GitConfig = GitConfig.model_construct()
    prune_limit: Annotated[int, Field(ge=0, le=100)] = Field(
        50,
        alias="pruneLimit",
        description="The share (percent) of a Source's objects that one revision may remove without `allowMassPrune`.",
    )
    wait_for: Seconds = Field(
        600.0, alias="waitFor", description="How long a revision may wait for an object that it names."
    )


class ProxyConfig(Spec):
    """Proxies for registries. With neither, the environment says: HTTP_PROXY, HTTPS_PROXY, NO_PROXY."""

    http: str | None = Field(None, description="The proxy for http, such as `http://proxy.example.org:3128`.")
    https: str | None = Field(None, description="The proxy for https.")
    no_proxy: Listed[str] = Field(
        (), alias="noProxy", description="Hosts, domains (`.example.org`) and networks that are asked directly."
    )


class TransferConfig(Spec):
    """How images come."""

    hosts: Listed[AbsolutePath] = Field(
        ("/etc/reconciler/certs.d",),
        description="Folders of `HOST/hosts.toml` (mirrors, authorities), searched in order.",
    )
    docker_config: AbsolutePath | None = Field(
        None, alias="dockerConfig", description="A docker `config.json` with logins, for images that name no Secret."
    )
    proxy: ProxyConfig = ProxyConfig.model_construct()
    ca: AbsolutePath | None = Field(
        None, description="A file of certificate authorities to trust beside the system's, for every registry."
    )
    plain_http: Listed[str] = Field(
        (), alias="plainHttp", description="Registries (`host` or `host:port`) that may be asked without TLS."
    )
    parallel: Annotated[int, Field(ge=1, le=32)] = Field(4, description="How many blobs of one image come at once.")
    keep_free: Annotated[int, Field(ge=0, le=90)] = Field(
        10, alias="keepFree", description="The share (percent) of the disk that a pull must leave free."
    )


class SnapshotsConfig(Spec):
    """How root filesystems are made."""

    default: Literal["overlayfs", "native"] = Field(
        "overlayfs",
        description="The snapshotter of images that name none. What is held stays in the one that it is in.",
    )


_WORDS: Final = {
    "sandbox": ("service",),
    "rootfs": ("mounts",),
    "machine": ("microvm", "q35", "virt"),
    "network": ("none",),
}
"""Options for which there are only these words, or nothing."""


def _switches(options: dict[str, str]) -> dict[str, str]:
    for name, words in _WORDS.items():
        if options.get(name, words[0]) not in words:
            raise Wrong(f"has {name}: {options[name]}", f"write {name}: {' or '.join(words)}, or leave it out")
    return options


class RuntimeConfig(Spec):
    """One runtime, under the name that manifests ask for. What it started stays as it is when this changes."""

    sandboxer: Literal["oci", "wasm", "shim", "vm"] = Field(
        "oci",
        description="The kind of driver: `oci` (runc and its like), `wasm` (modules), `shim` (containerd's shims), "
        "`vm` (virtual machines by QEMU; `options.guest`: the folder that `runtime prepare vm` filled; "
        "`options.machine`: `microvm`, `q35` or `virt`, in place of the best that QEMU has).",
    )
    path: AbsolutePath | None = Field(
        None,
        description="The program. Left out: NAME is found on PATH; for a shim, containerd-shim-NAME.",
    )
    options: Annotated[dict[str, str], AfterValidator(_switches)] = Field(
        {}, description="What the driver is told beside."
    )


class NetworkConfig(Spec):
    """The networks of sandboxes. What is attached stays; what is attached from now on follows."""

    lists: AbsolutePath = Field(
        "/etc/cni/net.d",
        description="The folder of CNI configuration lists, by whose names sandboxes ask for a network. "
        "The network `default` is made by the agent where no list has that name.",
    )
    plugins: Listed[AbsolutePath] = Field(
        ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"),
        description="The folders of CNI plugins, searched in order.",
    )


class TelemetryConfig(Spec):
    """Where spans and metrics go. The standard OTEL_* variables of the environment win."""

    endpoint: str | None = Field(
        None,
        description="A collector (OTLP over HTTP), such as `http://collector:4318`. Left out: nothing is sent.",
        json_schema_extra=AFTER_RESTART,
    )
    interval: Seconds = Field(60.0, description="How often metrics are sent.", json_schema_extra=AFTER_RESTART)


class GcConfig(Spec):
    """When what nobody needs any more goes."""

    interval: Seconds = Field(3600.0, description="How often blobs and snapshots that no object needs are removed.")
    keep_revisions: Annotated[int, Field(ge=1, le=100)] = Field(
        3, alias="keepRevisions", description="How many revisions of each Source stay, images too, for a rollback."
    )


class PolicyConfig(Spec):
    """What manifests may ask for."""

    allow_privileged: bool = Field(
        False,
        alias="allowPrivileged",
        description="Whether a Container may be `privileged`: root on this node in all but name.",
    )
    cdi: Listed[AbsolutePath] = Field(
        ("/etc/cdi", "/var/run/cdi"),
        description="Folders of CDI specifications, whose devices `security.devices` may name; later ones win.",
    )


class Config(Spec):
    """The whole configuration."""

    version: Literal[2] = Field(2, description="The layout of this file. It stands in every file.")
    root: AbsolutePath | None = Field(
        None,
        description="The folder of what must last. `--root` and RECONCILER_ROOT win. "
        "Left out: `/var/lib/reconciler`, for others than root `$XDG_STATE_HOME/reconciler`.",
        json_schema_extra=AFTER_RESTART,
    )
    state: AbsolutePath | None = Field(
        None,
        description="The folder of what may go at reboot. `--state` and RECONCILER_STATE win. "
        "Left out: `/run/reconciler`, for others than root `$XDG_RUNTIME_DIR/reconciler`.",
        json_schema_extra=AFTER_RESTART,
    )
    node: NodeConfig = NodeConfig.model_construct()
    sources: SourcesConfig = SourcesConfig.model_construct()
    transfer: TransferConfig = TransferConfig.model_construct()
    snapshots: SnapshotsConfig = SnapshotsConfig.model_construct()
    runtimes: dict[Name, RuntimeConfig] = Field(
        {}, description="The runtimes that manifests may name, by name. `runc` and `crun` are there without an entry."
    )
    default_runtime: Name = Field(
        "runc",
        alias="defaultRuntime",
        description="The runtime of containers that name none. What runs keeps the one that it has.",
    )
    network: NetworkConfig = NetworkConfig.model_construct()
    telemetry: TelemetryConfig = TelemetryConfig.model_construct()
    gc: GcConfig = GcConfig.model_construct()
    policy: PolicyConfig = PolicyConfig.model_construct()
