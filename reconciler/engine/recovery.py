"""A store that lost something is filled again from what was kept beside it, and says so.

Rules of this file: called before the first look, by who holds the engine's lock, as often as it takes: a kill at any
point leaves work for the next call and nothing else. What a commit of the store said and an older store does not know
is told by the versions in applied/; what runs is taken in from its bundles afterwards (`orphans`, `decide.switching`).
The notice of what was lost stays for a week, or until the damaged file that was set aside is removed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from core.clock import timestamp
from reconciler.model.identity import FINALIZERS, Key
from reconciler.places import Paths
from reconciler.store.applied import (
    Kept,
    catch_up,
    forget_gone,
    keep_applied,
    load_applied,
    refill,
    unsaid,
)
from reconciler.store.port import Event, ObjectStore
from reconciler.store.revisions import REFILLED
from reconciler.store.sqlite_recovery import DAMAGE, Damage

NOTICE: Final = "store.notice"
"""The word in the store that says what was lost and from where it came back."""
REASON: Final = "StoreRebuilt"
_FILLED: Final = "filled"
_WEEK: Final = 7 * 86400.0
_log: Final = logging.getLogger(__name__)


def fill(paths: Paths, store: ObjectStore, now: float, node: Key) -> None:
    """Bring the store up to what applied/ and it together know, and applied/ up to the store. Raises `OSError`."""
    damage = Damage.of(store)
    loaded = load_applied(paths.root)
    new = store.meta(_FILLED) is None
    if new:
        back = refill(store, loaded.kept, finalizers=FINALIZERS, now=now)
    else:
        back = catch_up(store, loaded.kept, finalizers=FINALIZERS, now=now)
        if not back:
            forget_gone(paths.root, store)
    written = keep_applied(paths.root, store, unsaid(loaded, store))
    if damage is not None or back:
        store.set_meta(REFILLED, timestamp(now))
        _tell(store, node, _rebuilt(damage, back, new), damage, now)
    elif written:
        say(store, node, "AppliedRewritten", _rewritten(paths.root, written), now)
    if new:
        store.set_meta(_FILLED, paths.instance)
    if damage is not None:
        store.set_meta(DAMAGE, "")


def notice(paths: Paths, store: ObjectStore, now: float) -> str:
    """What a person should still know of a loss, in a sentence; empty: nothing."""
    try:
        said = json.loads(store.meta(NOTICE) or "{}")
    except ValueError:
        return ""
    if not said or abs(now - said["at"]) > _WEEK:
        return ""
    if said["aside"] and not (paths.root / said["aside"]).exists():
        return ""
    return str(said["message"])


def _rebuilt(damage: Damage | None, back: Sequence[Kept], new: bool) -> str:
    return "; ".join(_parts(damage, back, new))


def _parts(damage: Damage | None, back: Sequence[Kept], new: bool) -> Iterator[str]:
    names = ", ".join(str(one.wanted.key) for one in back[:5]) + (" …" if len(back) > 5 else "")
    if damage is not None:
        yield f"the store was damaged ({damage.found})"
        yield f"{damage.saved} objects were whole in it"
    elif new:
        yield "the store was lost"
    else:
        yield "the store had lost its newest commits"
    yield f"{len(back)} came back from applied/" + (f" ({names})" if back else "")
    yield "what Sources and images had is fetched again, what runs is taken in again"
    if damage is not None and damage.aside:
        yield f"the damaged file is kept as {damage.aside}: remove it when you no longer want it"


def _rewritten(root: Path, written: Sequence[Path]) -> str:
    names = ", ".join(str(path.relative_to(root)) for path in written[:5]) + (" …" if len(written) > 5 else "")
    return f"was lost or damaged, and is written anew from the store: {names}"


def _tell(store: ObjectStore, node: Key, message: str, damage: Damage | None, now: float) -> None:
    aside = "" if damage is None else damage.aside
    at = timestamp(now)
    store.set_meta(NOTICE, json.dumps({"at": now, "aside": aside, "message": f"{at}: {message}"}))
    say(store, node, REASON, message, now)


def say(store: ObjectStore, node: Key, reason: str, message: str, now: float) -> None:
    """Tell a person of a loss: a line in the log, an event of the node."""
    _log.warning("%s: %s", reason, message)
    store.add_event(Event(0, node, "Warning", reason, message, now, now))
