"""The spec of an Image."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reconciler.model.kinds.base import SecretReference, Spec
from reconciler.model.kinds.texts import ArchivePath, ImageReference, PlatformText


class ImageUpdate(Spec):
    """When the reference is resolved anew: never, so far."""

    policy: Literal["Pinned"] = "Pinned"


class ImageSpec(Spec):
    """An image to hold, unpacked. `archive`: where it comes from instead of a registry; `platform` None: the node's."""

    ref: ImageReference
    archive: ArchivePath | None = None
    platform: PlatformText | None = None
    pull_policy: Literal["IfNotPresent", "Never"] = Field("IfNotPresent", alias="pullPolicy")
    update: ImageUpdate = ImageUpdate.model_construct()
    snapshotter: Literal["overlayfs", "native"] = "overlayfs"
    credentials: SecretReference | None = None
