"""The spec of a Volume."""

from __future__ import annotations

from reconciler.model.kinds.base import Spec
from reconciler.model.kinds.quantities import FileMode, Ownership


class VolumeSpec(Spec):
    """A folder that outlives its containers. `owner`, `mode` None: as the image's folder at its first mount."""

    owner: Ownership | None = None
    mode: FileMode | None = None
    retain: bool = True
