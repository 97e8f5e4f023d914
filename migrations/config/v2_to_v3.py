"""containerd's version 2 to 3: the CRI plugin is parted in three, what containerd 2.0 no longer has is replaced.

Rules of this file: numbered steps, in this order. A key moves whether or not its neighbours are there. Where an old and
a new key are both set, the one that was in force in version 2 stays, but a renamed plugin's own section wins.
"""

from __future__ import annotations

from typing import Any, Final

from migrations.config import runtimes
from migrations.config.known import STREAMING, is_default
from migrations.config.logins import save_logins
from migrations.config.mirrors import mirrors_to_hosts
from migrations.config.plugins import AUFS, CRI, GONE, IMAGES, LINUX, RENAMED, RUNTIME, SHIMS, TASK, rename_in_lists
from migrations.config.work import Outcome, Work

_IMAGE_KEYS: Final = (
    "registry",
    "image_decryption",
    "max_concurrent_downloads",
    "image_pull_progress_timeout",
    "image_pull_with_sync_fs",
    "stats_collect_period",
)
_STORE_KEYS: Final = ("snapshotter", "disable_snapshot_annotations", "discard_unpacked_layers")
_RENAMED_HOW: Final = "the plugin has a new name"


def step(work: Work) -> None:
    """Change `work` from version 2 to 3."""
    save_logins(work, ("plugins", CRI, "registry"))  # 1. no login stays in the document
    mirrors_to_hosts(work, ("plugins", CRI, "registry"))  # 2. mirrors have folders of their own
    runtimes.replace_gone(work)  # 3. runtimes, while they are where version 2 has them
    _cgroup(work)
    _images(work)  # 4. to the plugin of images
    _runtime(work)  # 5. all else but streaming to the plugin of runtimes
    _task(work)  # 6. the other plugins
    for old, new in RENAMED.items():
        work.move(("plugins", old), ("plugins", new), how=_RENAMED_HOW)
    rename_in_lists(work, RENAMED, "new names", GONE)
    _gone(work)
    save_logins(work, ("plugins", IMAGES, "registry"))  # 7. what a mixed document has in its new place
    mirrors_to_hosts(work, ("plugins", IMAGES, "registry"))


def _cgroup(work: Work) -> None:
    path = ("plugins", CRI, "disable_cgroup")
    if work.value(*path):
        work.drop(path, "containerd cannot do without cgroups any more: delegate a cgroup (v2) to it")
    else:
        work.drop(path, "the default; containerd 2 has no such key", Outcome.DEFAULT)


def _images(work: Work) -> None:
    for key in _IMAGE_KEYS:
        work.move(("plugins", CRI, key), ("plugins", IMAGES, key), keep="old")
    work.move(("plugins", CRI, "sandbox_image"), ("plugins", IMAGES, "pinned_images", "sandbox"), keep="old")
    for key in _STORE_KEYS:
        work.move(("plugins", CRI, "containerd", key), ("plugins", IMAGES, key), keep="old")
    path = ("plugins", IMAGES, "snapshotter")
    if work.value(*path) == "aufs":
        work.translate(path, path, "overlayfs", GONE[AUFS])
    for name in work.names("plugins", CRI, "containerd", "runtimes"):
        runtimes.snapshotter(work, ("plugins", CRI, "containerd", "runtimes", name), name)


def _runtime(work: Work) -> None:
    cni = ("plugins", CRI, "cni")
    old, new = work.get(*cni, "bin_dir"), ("plugins", RUNTIME, "cni", "bin_dirs")
    if old is not None and work.get(*cni, "bin_dirs") is not None:
        work.drop((*cni, "bin_dir"), "bin_dirs is set too, and wins", Outcome.INERT)
    elif old is not None:
        work.translate((*cni, "bin_dir"), new, [old.value] if old.value else [], "a list now")
    for name in work.names("plugins", CRI, "containerd", "runtimes"):
        one = ("plugins", CRI, "containerd", "runtimes", name)
        if work.value(*one, "sandboxer"):
            work.drop((*one, "sandbox_mode"), "sandboxer is set too, and wins", Outcome.INERT)
        elif work.get(*one, "sandbox_mode") is not None:
            work.drop((*one, "sandboxer"), "sandbox_mode says it", Outcome.DEFAULT)
            work.move((*one, "sandbox_mode"), (*one, "sandboxer"))
    for key in work.names("plugins", CRI):
        if key not in STREAMING:
            work.move(("plugins", CRI, key), ("plugins", RUNTIME, key))


def _task(work: Work) -> None:
    path, env = ("plugins", TASK, "sched_core"), ("plugins", SHIMS, "env")
    node = work.get(*path)
    if node is None:
        return
    if not node.value:
        work.drop(path, "the default; the shims' environment says it now", Outcome.DEFAULT)
        return
    there: Any = work.get(*env)
    if there is None:
        work.translate(path, env, ["SCHED_CORE=1"], "the shims' environment says it now")
        return
    if not any(line.startswith("SCHED_CORE=") for line in there.value):
        there.set([*there.value, "SCHED_CORE=1"])
    there.origins = (*there.origins, *node.origins)
    work.note(node, Outcome.TRANSLATED, "the shims' environment says it now")
    work.drop(path, "")


def _gone(work: Work) -> None:
    """Sections and keys of what containerd 2.0 does not have."""
    for key in work.names("plugins", LINUX):
        path = ("plugins", LINUX, key)
        if is_default(path, work.value(*path)):
            work.drop(path, "the default of a shim that is gone", Outcome.DEFAULT)
        else:
            work.drop(path, f"{GONE[LINUX]}, and has no such setting; no runtime used this one")
    for plugin in (LINUX, AUFS):
        for key in work.names("plugins", plugin):
            empty = not work.value("plugins", plugin, key)
            why = GONE[plugin] if not empty else f"empty; {GONE[plugin]}"
            work.drop(("plugins", plugin, key), why, Outcome.DEFAULT if empty else Outcome.DROPPED)
        work.drop(("plugins", plugin), f"empty; {GONE[plugin]}", Outcome.DEFAULT)
    if work.value("plugin_dir"):
        work.drop(("plugin_dir",), "containerd 2 loads no libraries: run the plugin as a proxy plugin or a binary")
    else:
        work.drop(("plugin_dir",), "empty; containerd 2 has no such key", Outcome.DEFAULT)
