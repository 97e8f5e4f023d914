"""From the configuration to what each part takes: settings objects stop here.

Rules of this file: nothing is remembered, so that a configuration that is taken up later is read as at the start.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path

from core.errors import NotFound
from core.process import Launcher
from core.runtime.table import RuntimeSpec
from reconciler.decide.references import auth_secret
from reconciler.engine.remotes import TransferSettings
from reconciler.engine.sources import Ways
from reconciler.model.config import Config, TransferConfig
from reconciler.model.identity import Key, Kind, source_of
from reconciler.model.kinds.secret import SecretSpec
from reconciler.model.kinds.source import SourceSpec
from reconciler.model.objects import Object
from reconciler.places import Paths
from reconciler.sources.fetchers import git_fetcher
from reconciler.sources.folder import FolderFetcher
from reconciler.sources.git_access import access
from reconciler.sources.repositories import Home, Limits, wanted
from reconciler.sources.revisions import Fetcher
from reconciler.sources.substitution import Variables
from reconciler.store.port import ObjectStore


def node_name(config: Config) -> str:
    """This node's name as an object: the configured one, else its host name in the letters that names have."""
    if config.node.name is not None:
        return config.node.name
    return re.sub(r"[^-a-z0-9.]+", "-", socket.gethostname().lower()).strip("-.")[:63] or "node"


def facts_of(config: Config) -> Mapping[str, str]:
    """What `valueFrom: {node: …}` may name."""
    return {"name": node_name(config), **{f"labels.{name}": text for name, text in config.node.labels.items()}}


def runtime_specs(config: Config) -> tuple[RuntimeSpec, ...]:
    """The runtimes that the configuration adds, or describes otherwise than they are by themselves."""
    return tuple(RuntimeSpec(name, one.sandboxer, one.path or "", one.options) for name, one in config.runtimes.items())


def transfer_settings(config: TransferConfig) -> TransferSettings:
    """What the configuration says of transfers, for below the wiring."""
    proxy = config.proxy
    return TransferSettings(
        hosts=tuple(map(Path, config.hosts)),
        docker_config=Path(config.docker_config) if config.docker_config is not None else None,
        proxy=(proxy.http, proxy.https, proxy.no_proxy),
        ca=Path(config.ca) if config.ca is not None else None,
        plain=frozenset(config.plain_http),
        parallel=config.parallel,
        keep_free=config.keep_free,
    )


def source_ways(paths: Paths, store: ObjectStore, launcher: Launcher, config: Config) -> Ways:
    """How Sources are read on this node."""
    git = config.sources.git

    def make(obj: Object, spec: SourceSpec) -> Fetcher:
        if spec.folder is not None:
            return FolderFetcher(Path(spec.folder), spec.path)
        what = wanted(obj.spec["git"], spec.path, allow_file=git.allow_file or source_of(obj.manager) is None)
        home = Home(paths.sources / obj.name, paths.state / "sources" / obj.name)
        shown = access(what.address, git, _login_of(store, auth_secret(obj.spec)))
        return git_fetcher(home, what, shown, launcher, Limits(seconds=git.timeout))

    variables = Variables(node_name(config), config.node.labels)
    return Ways(make, paths.sources, variables, git.allow_file, config.policy.allow_privileged)


def _login_of(store: ObjectStore, name: str | None) -> Mapping[str, bytes] | None:
    if name is None:
        return None
    secret = store.get(Key(Kind.SECRET, name))
    if secret is None or secret.deleted is not None:
        raise NotFound(f"secret/{name} is not there", advice=f"Apply a Secret named {name}; it is then tried at once.")
    return SecretSpec.model_validate(secret.spec).contents()
