"""What all specs share: frozen, nothing unknown, no conversions, built when first used."""

from __future__ import annotations

import re
from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict

from reconciler.model.kinds.quantities import ByteCount, Millicores, read_by
from reconciler.model.kinds.texts import LabelKey, LabelValue, Name, matching

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


_CPU_LIST: Final = re.compile(r"\d{1,5}(?:-\d{1,5})?(?:,\d{1,5}(?:-\d{1,5})?)*")
CpuList = Annotated[
    str,
    *read_by(
        matching(_CPU_LIST, "is not a list of numbers", 'write numbers and ranges, in quotes: "0-2,4"'),
        {"pattern": f"^(?:{_CPU_LIST.pattern})$"},
    ),
]
PageSize = Annotated[
    str,
    *read_by(
        matching(re.compile(r"[1-9]\d{0,3}[KMG]i"), "is not the size of a page", "write 2Mi or 1Gi"),
        {"pattern": "^[1-9][0-9]{0,3}[KMG]i$"},
    ),
]


class Cpuset(Spec):
    """The processors and memory nodes that it is kept to, as lists such as `0-2,4`; None: all."""

    cpus: CpuList | None = None
    mems: CpuList | None = None


class Resources(Spec):
    """Limits: `cpu` in thousandths of a core, `memory` in bytes, `pids` in processes and threads; None: no limit.

    `hugepages`: bytes by the size of a page; `io_weight`: its part of the disks' time, 10 to 1000.
    """

    cpu: Millicores | None = None
    memory: ByteCount | None = None
    pids: Annotated[int, Field(ge=1, le=4194304)] | None = None
    cpuset: Cpuset = Cpuset.model_construct()
    hugepages: dict[PageSize, ByteCount] = Field({})
    io_weight: Annotated[int, Field(ge=10, le=1000)] | None = Field(None, alias="ioWeight")


class SecretReference(Spec):
    """The name of a Secret, for `credentials`."""

    secret: Name
