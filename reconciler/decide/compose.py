"""From a container's spec and its image's configuration to what the runtime is asked for. Pure.

The image says only what `ImageConfig` holds; the manifest wins over it, field by field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from core.errors import Invalid
from core.runtime.cdi import Edits
from core.runtime.node import Device
from core.runtime.ports import SandboxState
from core.runtime.resourcing import PIDS_DEFAULT, Resources
from core.runtime.spec import DEFAULT_PATH, Mount, MountKind, Security, User, Wanted
from core.transfer.ports import ImageConfig
from core.values import dataclass
from reconciler.model.kinds.base import Resources as ResourcesSpec
from reconciler.model.kinds.container import ContainerSpec, EnvVar
from reconciler.model.kinds.container import Mount as MountSpec
from reconciler.model.kinds.security import UNCONFINED

Secrets = Mapping[str, Mapping[str, bytes]]


@dataclass(frozen=True, slots=True)
class Places:
    """Where the hands have put what a task mounts: host paths by name, by index in `mounts`, by path in the image."""

    volumes: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[int, str] = field(default_factory=dict)
    anonymous: Mapping[str, str] = field(default_factory=dict)
    init: str = ""
    devices: Sequence[Device] = ()
    seccomp: Mapping[str, Any] | None = None
    """The profile that the manifest names by its path, read."""
    cdi: Edits = Edits()
    """What its CDI devices bring beside their device nodes."""
    apparmor: str = ""
    """The name of the AppArmor profile that it is to have; "": as the runtime leaves it."""


def command(spec: ContainerSpec, config: ImageConfig) -> list[str]:
    """The command line: `command` replaces the image's entrypoint and its cmd, `args` replaces its cmd."""
    if spec.command is not None:
        words = [*spec.command, *(spec.args or ())]
    else:
        words = [*config.entrypoint, *(spec.args if spec.args is not None else config.cmd)]
    if not words:
        raise Invalid("neither the manifest nor the image says what to run", advice="Set spec.command.")
    return words


def environment(spec: ContainerSpec, config: ImageConfig, secrets: Secrets, node: Mapping[str, str]) -> list[str]:
    """`NAME=value`, the image's first, a default PATH; raises `Invalid` for a secret's key that is not there."""
    merged = {"PATH": DEFAULT_PATH}
    for pair in config.env:
        name, _, value = pair.partition("=")
        merged[name] = value
    for variable in spec.env:
        merged[variable.name] = _value(variable, secrets, node)
    return [f"{name}={value}" for name, value in merged.items()]


def _value(variable: EnvVar, secrets: Secrets, node: Mapping[str, str]) -> str:
    if variable.value_from is None:
        return variable.value or ""
    wanted = variable.value_from.secret
    if wanted is None:
        return node.get(variable.value_from.node or "", "")
    data = secrets.get(wanted.name, {})
    if wanted.key not in data:
        there = ", ".join(sorted(data)) or "none"
        raise Invalid(f"env {variable.name}: secret {wanted.name} has no key {wanted.key}; it has: {there}")
    try:
        return data[wanted.key].decode()
    except UnicodeDecodeError:
        raise Invalid(f"env {variable.name}: key {wanted.key} of secret {wanted.name} is not text; mount it") from None


def working_dir(spec: ContainerSpec, config: ImageConfig) -> str:
    """Where it starts."""
    return spec.working_dir or config.working_dir or "/"


def resources(spec: ResourcesSpec) -> Resources:
    """Limits: thousandths of a core become cores; without a limit of processes the runtime's default is taken."""
    return Resources(
        cpu=None if spec.cpu is None else spec.cpu / 1000,
        memory=spec.memory,
        pids=PIDS_DEFAULT if spec.pids is None else spec.pids,
        cpus=spec.cpuset.cpus or "",
        mems=spec.cpuset.mems or "",
        hugepages={f"{size.removesuffix('i')}B": most for size, most in spec.hugepages.items()},
        io_weight=spec.io_weight,
    )


def security(spec: ContainerSpec, places: Places) -> Security:
    """What it may do."""
    wanted = spec.security
    return Security(
        add=tuple(wanted.capabilities.add),
        drop=tuple(wanted.capabilities.drop),
        no_new_privileges=wanted.no_new_privileges,
        readonly_rootfs=wanted.read_only_rootfs,
        privileged=wanted.privileged,
        seccomp=places.seccomp,
        unconfined=wanted.seccomp == UNCONFINED,
        apparmor=places.apparmor,
        devices=tuple(places.devices),
    )


def mounts(spec: ContainerSpec, places: Places) -> list[Mount]:
    """The image's anonymous volumes where nothing else is mounted, then the manifest's mounts in their order."""
    given = {mount.path.rstrip("/") for mount in spec.mounts}
    anonymous = [
        Mount(path, source=source) for path, source in places.anonymous.items() if path.rstrip("/") not in given
    ]
    return [*anonymous, *(_mount(index, mount, places) for index, mount in enumerate(spec.mounts))]


def _mount(index: int, mount: MountSpec, places: Places) -> Mount:
    if mount.tmpfs is not None:
        return Mount(mount.path, MountKind.TMPFS, size=mount.tmpfs.size or 0, read_only=mount.read_only)
    if mount.secret is not None:
        return Mount(mount.path, source=places.secrets[mount.secret], read_only=True)
    if mount.file is not None:
        return Mount(mount.path, source=places.files[index], read_only=True)
    if mount.bind is not None:
        return Mount(mount.path, source=mount.bind.source, read_only=mount.read_only)
    return Mount(mount.path, source=places.volumes[mount.volume or ""], read_only=mount.read_only)


def wanted_task(
    id: str,
    spec: ContainerSpec,
    args: Sequence[str],
    env: Sequence[str],
    cwd: str,
    user: User,
    places: Places,
    sandbox: SandboxState,
) -> Wanted:
    """All of it, for `core.runtime.spec.build`."""
    return Wanted(
        args=args,
        cgroup=f"{sandbox.cgroup}/{id}",
        env=[*env, *places.cdi.env],
        cwd=cwd,
        user=replace(user, groups=(*user.groups, *places.cdi.groups)),
        mounts=[*mounts(spec, places), *places.cdi.mounts],
        resources=resources(spec.resources),
        security=security(spec, places),
        namespaces=sandbox.namespaces,
        first_id=sandbox.first_id,
        files=sandbox.files,
        terminal=spec.tty,
        init=places.init,
    )
