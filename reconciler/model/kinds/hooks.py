"""Commands that are run in a container at the two ends of its life."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from reconciler.model.kinds.base import Listed, Spec
from reconciler.model.kinds.quantities import Seconds

POST_START: Final = "postStart"
PRE_STOP: Final = "preStop"


class Hook(Spec):
    """A command in the container, as its own user. It has `timeout` seconds; one that is over is killed."""

    exec: Annotated[Listed[str], Field(min_length=1)]
    timeout: Seconds = 30.0


class Hooks(Spec):
    """`postStart`: right after the start; until it has ended with 0 the container is not Ready, and when it fails, the
    container is ended and the restart policy applies. `preStop`: before the container is asked to end, within the
    grace; what comes of it changes nothing. Either may be run twice when the agent was killed meanwhile.
    """

    post_start: Hook | None = Field(None, alias="postStart")
    pre_stop: Hook | None = Field(None, alias="preStop")
