"""The kinds that people write, as models: one file a kind, one literal table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from core.errors import Invalid
from reconciler.model.identity import Kind
from reconciler.model.kinds.container import ContainerSpec
from reconciler.model.kinds.image import ImageSpec
from reconciler.model.kinds.sandbox import SandboxSpec
from reconciler.model.kinds.secret import SecretSpec
from reconciler.model.kinds.source import SourceSpec
from reconciler.model.kinds.volume import VolumeSpec

AnySpec: TypeAlias = ImageSpec | SandboxSpec | ContainerSpec | VolumeSpec | SecretSpec | SourceSpec

SPEC_MODELS: Final[Mapping[Kind, type[AnySpec]]] = {
    Kind.IMAGE: ImageSpec,
    Kind.SANDBOX: SandboxSpec,
    Kind.CONTAINER: ContainerSpec,
    Kind.VOLUME: VolumeSpec,
    Kind.SECRET: SecretSpec,
    Kind.SOURCE: SourceSpec,
}


def spec_model(kind: Kind) -> type[AnySpec]:
    """The model of the kind's `spec`; raises `Invalid` for the kinds that the agent makes."""
    if (model := SPEC_MODELS.get(kind)) is None:
        raise Invalid(f"{kind} objects are made by the agent", advice="Read them with get and describe.")
    return model
