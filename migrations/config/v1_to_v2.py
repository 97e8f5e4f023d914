"""containerd's version 1 to 2: plugins get their whole names, in the tables and in the lists; nothing else changes."""

from __future__ import annotations

from migrations.config.logins import save_logins
from migrations.config.plugins import CRI, LISTS, long_name, rename_in_lists
from migrations.config.work import Outcome, Work


def step(work: Work) -> None:
    """Change `work` from version 1 to 2."""
    for name in work.names("plugins"):
        whole, guessed = long_name(name)
        if whole == name:
            continue
        node = work.get("plugins", name)
        work.move(("plugins", name), ("plugins", whole))
        if guessed and node is not None:
            work.note(node, Outcome.MOVED, f"{name} is no name that version 1 knew: {whole} is meant, probably")
    listed = {name for key in LISTS for name in work.value(key) or []}
    names = {name: long_name(name)[0] for name in listed if "." not in name}
    rename_in_lists(work, names, "whole names")
    save_logins(work, ("plugins", CRI, "registry"))
