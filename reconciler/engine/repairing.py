"""Repair of content: a blob that does not hash to its name goes, and the images that need it fetch it anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from core.clock import Clock
from core.digest import Digest
from core.errors import Busy
from reconciler.engine.observe import Eyes
from reconciler.engine.requests import Fields, Report
from reconciler.model.identity import Key, Kind

REPAIR: Final = "repair"
_PAUSE: Final = 0.2


class Repairer:
    """Carries out the operation `repair`; `wake` has an object looked at."""

    def __init__(self, eyes: Eyes, wake: Callable[[Key], None], clock: Clock) -> None:
        self._eyes = eyes
        self._wake = wake
        self._clock = clock

    def operate(self, given: Fields, report: Report) -> Fields:
        """With `{"blobs": [digest]}`: drops those that are wrong (looked at anew, while no transfer is under way).

        Says `{"dropped": [digest], "images": [name]}`: the images fetch them by themselves from now on.
        """
        dropped = [blob for blob in given["blobs"] if self._drop(Digest.parse(blob), report)]
        wanted = set(given["blobs"])
        images = [obj for obj in self._eyes.store.list(Kind.IMAGE) if wanted & set(obj.record.get("blobs", ()))]
        for obj in images:
            self._wake(obj.key)
        return {"dropped": dropped, "images": [obj.name for obj in images]}

    def _drop(self, digest: Digest, report: Report) -> bool:
        content = self._eyes.node.content
        while True:
            report({"waiting": "for the transfers under way"})
            try:
                with content.closed():
                    if content.size(digest) is None or content.intact(digest):
                        return False
                    content.discard(digest)
                    return True
            except Busy:
                self._clock.sleep(_PAUSE)
