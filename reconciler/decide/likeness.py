"""Whether a checkpoint is one of a container as it is now: what differs, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from reconciler.decide.attempts import Attempt, lasting

if TYPE_CHECKING:
    from core.runtime.checkpoints import About


def differences(about: About, name: str, attempt: Attempt, runtime: Mapping[str, Any] | None) -> Iterator[str]:
    """Why container `name`, whose current attempt that is, cannot go on from the checkpoint; nothing: it can.

    `runtime`: how the container's is driven (see `RuntimeSpec`), None where that cannot be told now.
    """
    if about.container != name:
        yield f"it is one of container/{about.container}"
    image, spec = str(attempt.image.get("digest", "")), lasting(attempt.spec)
    if about.image != image:
        yield f"it is of image {_short(about.image)}, the container's is {_short(image)}"
    fields = sorted({*about.spec, *spec} - {"image"})
    changed = [field for field in fields if about.spec.get(field) != spec.get(field)]
    if changed:
        yield f"the container has another {', '.join(changed)} now"
    elif about.image == image and about.hash != attempt.hash:
        yield "what a secret of the container's holds, or the name of its image, has changed since"
    if runtime is not None and _kind(about.runtime) != _kind(runtime):
        yield f"it was made by {' '.join(_kind(about.runtime))}, the container runs by {' '.join(_kind(runtime))}"


def _short(digest: str) -> str:
    return digest[:19] or "unknown"


def _kind(runtime: Mapping[str, Any]) -> tuple[str, ...]:
    """What writes and reads a checkpoint: the driver, and the program whatever its folder."""
    program = str(runtime.get("path") or runtime.get("name") or "")
    return str(runtime.get("driver", "")), PurePath(program).name
