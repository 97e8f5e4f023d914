"""What differs for a WASM module when a task is prepared: where its file lies, and as whom it runs."""

from __future__ import annotations

import os

from core.errors import Denied, Invalid
from core.mounts import MountSpec
from core.runtime.spec import User
from core.snapshots.ports import Snapshotter


def files_of(snapshotter: Snapshotter, chain: str) -> tuple[MountSpec, ...]:
    """The folder of an image of one layer, to be read as it is; nothing for others. Raises `SnapshotMissing`."""
    if snapshotter.stat(chain).parent is not None:
        return ()
    return (MountSpec("bind", str(snapshotter.folder(chain)), ("bind", "ro", "nodev")),)


def user_of(text: str) -> User:
    """The numbers of `uid[:gid]`; left out: our own. A module's image has no names. Raises `Invalid`, `Denied`."""
    if not text:
        return User(os.geteuid(), os.getegid())
    uid, _, gid = text.partition(":")
    if not (uid.isdecimal() and (gid or "0").isdecimal()):
        raise Invalid(f"user {text[:60]!r} of a module is not a number", advice="Write uid or uid:gid.")
    user = User(int(uid), int(gid or 0))
    if os.geteuid() not in (0, user.uid):
        raise Denied(f"only root can run a module as user {uid}", advice="Leave `user` out.")
    return user
