"""Hands for what confines a task: profiles of its system calls, AppArmor, devices, and whether it may do without."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from core.errors import Denied, Invalid, NotFound
from core.runtime import seccomp
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


def check_apparmor(security: Security) -> None:
    """Raise `NotFound` for an AppArmor profile that the kernel does not know, where it says which it knows."""
    name = security.apparmor
    if name is None or name == UNCONFINED or security.privileged:
        return
    loaded = loaded_profiles()
    if loaded is not None and name not in loaded:
        raise NotFound(
            f"AppArmor profile {name!r} is not loaded on this node",
            advice="Load it with apparmor_parser, or leave it out.",
        )
