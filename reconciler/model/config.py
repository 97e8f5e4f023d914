"""The agent's configuration, version 2, as a model: what the machine decides, beside what manifests ask for.

Rules of this file: every field has a default, so that no configuration is a configuration; a path is absolute; nothing
secret is in it, only where it lies. Adding a field needs a line in its section's docstring: the reference is made of
them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from reconciler.model.kinds.base import Listed, Spec
from reconciler.model.kinds.quantities import Seconds
from reconciler.model.kinds.texts import AbsolutePath, LabelKey, LabelValue, Name

VERSION = 2


class NodeConfig(Spec):
    """Who this node is: `name` None: its host name; `labels` are what `${node.labels.…}` and rollouts select by."""

    name: Name | None = None
    labels: dict[LabelKey, LabelValue] = Field({})


class GitConfig(Spec):
    """How git is reached, for every Source: `sshKey`, `knownHosts`, `ca` (files); `timeout` of one fetch.

    HOME is not set under a service manager, so that nothing is found by itself. `allowFile`: Sources that came out of
    another Source may name `file:` and folders of the node too.
    """

    ssh_key: AbsolutePath | None = Field(None, alias="sshKey")
    known_hosts: AbsolutePath | None = Field(None, alias="knownHosts")
    ca: AbsolutePath | None = None
    timeout: Seconds = 120.0
    allow_file: bool = Field(False, alias="allowFile")


class SourcesConfig(Spec):
    """What all Sources share: `git`; `pruneLimit`: the share (percent) of a Source's objects that one revision may
    remove without `allowMassPrune`; `waitFor`: how long a revision may wait for what it refers to."""

    git: GitConfig = GitConfig.model_construct()
    prune_limit: Annotated[int, Field(ge=0, le=100)] = Field(50, alias="pruneLimit")
    wait_for: Seconds = Field(600.0, alias="waitFor")


class ProxyConfig(Spec):
    """Proxies for registries; None: what the environment says (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`)."""

    http: str | None = None
    https: str | None = None
    no_proxy: Listed[str] = Field((), alias="noProxy")


class TransferConfig(Spec):
    """How images come: `hosts`: folders of `<host>/hosts.toml`, searched in order; `dockerConfig`: a `config.json`
    with logins; `ca`: a file of more certificate authorities; `plainHttp`: hosts that may be reached without TLS;
    `parallel`: blobs of one image at once; `keepFree`: percent of the disk that a pull must leave free."""

    hosts: Listed[AbsolutePath] = ("/etc/reconciler/certs.d",)
    docker_config: AbsolutePath | None = Field(None, alias="dockerConfig")
    proxy: ProxyConfig = ProxyConfig.model_construct()
    ca: AbsolutePath | None = None
    plain_http: Listed[str] = Field((), alias="plainHttp")
    parallel: Annotated[int, Field(ge=1, le=32)] = 4
    keep_free: Annotated[int, Field(ge=0, le=90)] = Field(10, alias="keepFree")


class SnapshotsConfig(Spec):
    """`default`: the snapshotter of images that name none."""

    default: Literal["overlayfs", "native"] = "overlayfs"


class RuntimeConfig(Spec):
    """One runtime by name: `sandboxer` says which driver; `path` the program (None: found on PATH by its name)."""

    sandboxer: Literal["oci"] = "oci"
    path: AbsolutePath | None = None
    options: dict[str, str] = Field({})


class NetworkConfig(Spec):
    """`lists`: the folder of CNI configuration lists, by whose names sandboxes ask; `plugins`: the folders of their
    programs, in order. The network `default` is made by the agent where no list has that name."""

    lists: AbsolutePath = "/etc/cni/net.d"
    plugins: Listed[AbsolutePath] = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")


class TelemetryConfig(Spec):
    """Where spans and metrics go, unless the standard `OTEL_*` variables say so; `endpoint` None: nowhere."""

    endpoint: str | None = None
    interval: Seconds = 60.0


class GcConfig(Spec):
    """When what nobody needs goes: `interval`; `keepRevisions` of each Source keep their images for a rollback."""

    interval: Seconds = 3600.0
    keep_revisions: Annotated[int, Field(ge=1, le=100)] = Field(3, alias="keepRevisions")


class Config(Spec):
    """The whole configuration. `root` and `state` None: the defaults for this user, or what the options say."""

    version: Literal[2] = 2
    root: AbsolutePath | None = None
    state: AbsolutePath | None = None
    node: NodeConfig = NodeConfig.model_construct()
    sources: SourcesConfig = SourcesConfig.model_construct()
    transfer: TransferConfig = TransferConfig.model_construct()
    snapshots: SnapshotsConfig = SnapshotsConfig.model_construct()
    runtimes: dict[Name, RuntimeConfig] = Field({})
    default_runtime: Name = Field("runc", alias="defaultRuntime")
    network: NetworkConfig = NetworkConfig.model_construct()
    telemetry: TelemetryConfig = TelemetryConfig.model_construct()
    gc: GcConfig = GcConfig.model_construct()
