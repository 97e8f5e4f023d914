"""What all specs share: frozen, nothing unknown, no conversions, built when first used."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict

from reconciler.model.kinds.quantities import ByteCount, Millicores
from reconciler.model.kinds.texts import LabelKey, LabelValue, Name

T = TypeVar("T")

Listed = Annotated[tuple[T, ...], Strict(False)]
"""A list in the manifest, a tuple here; its items stay strict."""


class Spec(BaseModel):
    """Base of every model of a manifest. Fields with a default may be left out; keys are camelCase."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class Metadata(Spec):
    """`metadata` of every document."""

    name: Name
    labels: dict[LabelKey, LabelValue] = {}
    annotations: dict[LabelKey, str] = {}


class Resources(Spec):
    """Limits: `cpu` in thousandths of a core, `memory` in bytes, `pids` in processes and threads; None: no limit."""

    cpu: Millicores | None = None
    memory: ByteCount | None = None
    pids: Annotated[int, Field(ge=1, le=4194304)] | None = None


class SecretReference(Spec):
    """The name of a Secret, for `credentials`."""

    secret: Name
