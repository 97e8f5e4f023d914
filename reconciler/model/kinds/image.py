"""The spec of an Image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from reconciler.model.kinds.base import SecretReference, Spec
from reconciler.model.kinds.quantities import Seconds
from reconciler.model.kinds.texts import ArchivePath, ImageReference, PlatformText
from reconciler.model.problems import Problem, Wrong, mapping_at

_OFTENEST: Final = 10.0


def _not_too_often(seconds: float) -> float:
    if seconds < _OFTENEST:
        raise Wrong("is too short", f"write {_OFTENEST:.0f}s or more")
    return seconds


class ImageUpdate(Spec):
    """Whether a new digest of the tag is taken (`Digest`) or the first one stays (`Pinned`), and how often it is asked
    for; `interval` is that of `pullPolicy: Always` too."""

    policy: Literal["Pinned", "Digest"] = "Pinned"
    interval: Annotated[Seconds, AfterValidator(_not_too_often)] = 300.0


class ImageSpec(Spec):
    """An image to hold, unpacked. `archive`: where it comes from instead of a registry; `platform` None: the node's;
    `snapshotter` None: the configuration's (`snapshots.default`).
    """

    ref: ImageReference
    archive: ArchivePath | None = None
    platform: PlatformText | None = None
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = Field("IfNotPresent", alias="pullPolicy")
    update: ImageUpdate = ImageUpdate.model_construct()
    snapshotter: Literal["overlayfs", "native"] | None = None
    credentials: SecretReference | None = None


def image_conflicts(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """A tag that is to be followed where no registry may be asked."""
    follows = mapping_at(spec, "update").get("policy") == "Digest"
    if follows and spec.get("pullPolicy") == "Never":
        yield Problem(("update", "policy"), "asks a registry, and pullPolicy is Never", "leave one of them out")
    if (follows or spec.get("pullPolicy") == "Always") and "archive" in spec:
        word = ("update", "policy") if follows else ("pullPolicy",)
        yield Problem(word, "asks a registry, and the image comes from an archive", "leave one of them out")
