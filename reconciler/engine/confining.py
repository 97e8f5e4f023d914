"""Hands for what confines a task: profiles of its system calls, AppArmor, devices, and whether it may do without."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from core import fsio
from core.errors import Denied, Invalid, NotFound
from core.runtime import seccomp
from core.runtime.apparmor import AppArmor
from core.runtime.node import loaded_profiles
from reconciler.model.kinds.security import UNCONFINED, Security

_MOST: Final = 1 << 20
_NOT_ALLOWED: Final = "Leave `security.privileged` out, or set policy.allowPrivileged: true in the configuration."


def check_allowed(security: Security, *, allow_privileged: bool) -> None:
    """Raise `Denied` for what the configuration does not allow; looked at before every start."""
    if security.privileged and not allow_privileged:
        raise Denied("this node's configuration allows no privileged containers", advice=_NOT_ALLOWED)


def seccomp_profile(security: Security) -> Mapping[str, Any] | None:
    """The profile that a manifest names by its path; None: it names none. Raises `NotFound`, `Invalid`."""
    if not security.seccomp_file or security.privileged:
        return None
    if (carried := security.carried_seccomp) is not None:
        return seccomp.parse(carried, f"seccomp profile {security.seccomp_file}")
    path = Path(security.seccomp_file)
    try:
        with open(path, "rb") as source:
            text = source.read(_MOST + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"seccomp profile {path} is not on this node", advice="Put it there, or name another.") from None
    except OSError as error:
        raise Invalid(f"seccomp profile {path} cannot be read: {error.strerror}") from None
    return seccomp.parse(text, str(path))


def apparmor_profile(security: Security, profiles: AppArmor) -> str:
    """The name of the AppArmor profile that the task asks for; "": it asks for none.

    Raises `NotFound` for one that the kernel does not know, where it says which it knows, and is no file either; what
    `AppArmor.load` raises for a file.
    """
    name = security.apparmor
    if name is None or name == UNCONFINED or security.privileged:
        return name or ""
    loaded = loaded_profiles()
    if loaded is None or name in loaded:  # without AppArmor the spec is refused, and says so
        return name
    if (carried := security.carried_apparmor) is not None:
        return profiles.load(carried, f"AppArmor profile {name}")
    if name.startswith("/") and (text := fsio.read_if_there(Path(name), _MOST)) is not None:
        return profiles.load(text, name)
    raise NotFound(
        f"AppArmor profile {name!r} is not loaded on this node",
        advice="Load it with apparmor_parser, name the file that it is in, or leave it out.",
    )
