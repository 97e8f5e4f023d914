"""The spec of a Container."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from reconciler.model.kinds.base import Listed, Resources, Spec
from reconciler.model.kinds.hooks import Hooks
from reconciler.model.kinds.module import module_conflicts
from reconciler.model.kinds.probes import Probes, probe_conflicts
from reconciler.model.kinds.quantities import ByteCount, Seconds, SignalNumber
from reconciler.model.kinds.sandbox import Network, machine_network_conflicts, network_conflicts
from reconciler.model.kinds.security import Security
from reconciler.model.kinds.texts import (
    AbsolutePath,
    Base64,
    DataKey,
    EnvName,
    ImageNameOrReference,
    MountPath,
    Name,
    NodeFact,
    RelativePath,
    UserText,
    decoded_base64,
    is_reference,
)
from reconciler.model.modules import VM, WASM
from reconciler.model.problems import Path, Problem, mapping_at, mappings_in

MOUNT_SOURCES: Final = ("volume", "bind", "tmpfs", "secret", "file")


class SecretKey(Spec):
    """One key of a Secret."""

    name: Name
    key: DataKey


class ValueFrom(Spec):
    """Where a variable's value comes from: a secret's key, or `name` or `labels.X` of the node."""

    secret: SecretKey | None = None
    node: NodeFact | None = None


class EnvVar(Spec):
    """One variable of the environment."""

    name: EnvName
    value: str | None = None
    value_from: ValueFrom | None = Field(None, alias="valueFrom")


class Bind(Spec):
    """A folder or file of the node; `create`: make the folder when it is not there."""

    source: AbsolutePath
    create: bool = False


class Tmpfs(Spec):
    """A folder in memory of at most `size` bytes (None: the kernel's default, half of the memory)."""

    size: ByteCount | None = None


class Mount(Spec):
    """What is at `path` in the container: exactly one of volume, bind, tmpfs, secret, file.

    `file` is a path beside the manifest; its content came with the manifest, in `file_content`.
    """

    path: MountPath
    volume: Name | None = None
    bind: Bind | None = None
    tmpfs: Tmpfs | None = None
    secret: Name | None = None
    file: RelativePath | None = None
    file_content: Base64 | None = Field(None, alias="fileContent", repr=False)
    read_only: bool = Field(False, alias="readOnly")

    def content(self) -> bytes:
        """The bytes of a `file` mount."""
        return decoded_base64(self.file_content or "")


class Restart(Spec):
    """Whether an ended container is run again; `max_delay` caps the exponential back-off, in seconds."""

    policy: Literal["Always", "OnFailure", "Never"] = "Always"
    max_delay: Seconds = Field(300.0, alias="maxDelay")


class Dependency(Spec):
    """Another container and what it must have reached before the first start. Without probes Ready means Started."""

    container: Name
    condition: Literal["Started", "Ready", "Succeeded"] = "Started"


class Stop(Spec):
    """`signal` (None: the image's, else TERM), then after `grace` seconds KILL."""

    signal: SignalNumber | None = None
    grace: Seconds = 10.0


class Log(Spec):
    """The log is rotated at `max_size` bytes; `files` of them are kept."""

    max_size: ByteCount = Field(10 << 20, alias="maxSize")
    files: Annotated[int, Field(ge=1, le=100)] = 3


class ContainerSpec(Spec):
    """One process tree from one image. With `sandbox`, that sandbox's runtime and network; else those given here."""

    image: ImageNameOrReference
    sandbox: Name | None = None
    runtime: Name | None = None
    network: Network | None = None
    command: Listed[str] | None = None
    args: Listed[str] | None = None
    env: Listed[EnvVar] = ()
    working_dir: AbsolutePath | None = Field(None, alias="workingDir")
    user: UserText | None = None
    tty: bool = False
    stdin: bool = False
    mounts: Listed[Mount] = ()
    resources: Resources = Resources.model_construct()
    security: Security = Security.model_construct()
    restart: Restart = Restart.model_construct()
    probes: Probes = Probes.model_construct()
    hooks: Hooks = Hooks.model_construct()
    depends_on: Listed[Dependency] = Field((), alias="dependsOn")
    stop: Stop = Stop.model_construct()
    log: Log = Log.model_construct()
    init: bool = False

    @property
    def image_is_reference(self) -> bool:
        """Whether `image` is a reference (an Image is made and owned), not the name of an Image object."""
        return is_reference(self.image)


def container_conflicts(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """What no field shows alone: sandbox against runtime and network, sources of mounts and variables, doubles."""
    if "sandbox" in spec:
        for field in ("runtime", "network"):
            if field in spec:
                advice = f"leave {field} out, or leave sandbox out for a private one"
                yield Problem((field,), "is the sandbox's matter when sandbox is given", advice, at_key=True)
    elif spec.get("runtime") == WASM:
        yield from module_conflicts(spec)
    else:
        yield from network_conflicts(mapping_at(spec, "network"))
        if spec.get("runtime") == VM:
            yield from machine_network_conflicts(mapping_at(spec, "network"))
    yield from probe_conflicts(spec)
    for i, mount in mappings_in(spec, "mounts"):
        yield from _one_of(("mounts", i), mount, (*MOUNT_SOURCES, "image"))
    for i, env in mappings_in(spec, "env"):
        yield from _one_of(("env", i), env, ("value", "valueFrom"))
        if "valueFrom" in env:
            yield from _one_of(("env", i, "valueFrom"), mapping_at(env, "valueFrom"), ("secret", "node"))
    yield from _doubles(spec, "mounts", "path")
    yield from _doubles(spec, "env", "name")
    yield from _doubles(spec, "dependsOn", "container")


def _one_of(path: Path, value: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[Problem]:
    given = [name for name in names if name in value]
    advice = f"write exactly one of {', '.join(name for name in names if name != 'image')}"
    if not given:
        yield Problem(path, "says not where it comes from", advice)
    for name in given[1:]:
        yield Problem((*path, name), f"stands beside {given[0]}", advice, at_key=True)


def _doubles(spec: Mapping[str, Any], field: str, name: str) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for i, item in mappings_in(spec, field):
        value = item.get(name)
        if isinstance(value, str) and (first := seen.setdefault(value, i)) != i:
            yield Problem((field, i, name), f"is that of {field}[{first}] too", "keep one of them")
