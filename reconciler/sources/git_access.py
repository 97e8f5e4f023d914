"""How we come to a repository: logins and keys, in files of their own for as long as git runs, and git's environment.

Rules of this file: no secret is in an argument, an address, a variable or a log; it is in a file with mode 0600 in a
folder with mode 0700 that goes when git has ended (a killed one's folder is swept). git sees no configuration but the
one written here, no home, no prompt, no agent, and no transport but the one of the address.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Final
from urllib.parse import quote

from core import fsio
from core.errors import Invalid
from core.values import dataclass
from reconciler.model.config import GitConfig
from reconciler.model.kinds.git import GitAddress

KEYS: Final = ("username", "password", "token", "sshKey", "knownHosts", "ca")
"""What a Secret under `auth` may hold."""
_ANYBODY: Final = "git"
_SECONDS_TO_LOOK: Final = 5.0
_PROXIES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")

READING: Final[Mapping[str, str]] = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS": "",
    "GIT_ALLOW_PROTOCOL": "",
    "GIT_PROTOCOL_FROM_USER": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_LITERAL_PATHSPECS": "1",
    "HOME": "/nonexistent",
    "XDG_CONFIG_HOME": "/nonexistent",
}
"""The environment of a git that only reads our own copy: no transport at all."""

OPTIONS: Final = (
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "protocol.allow=never"),
    *("-c", "submodule.recurse=false", "-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "core.fsync=all"),
)
"""Before every command: stronger than any file of configuration."""

# Memory: nothing large is inflated whole, and little of a pack is mapped at once.
_CONFIG: Final = """\
[core]
    bigFileThreshold = 4m
    packedGitWindowSize = 16m
    packedGitLimit = 128m
    deltaBaseCacheLimit = 32m
[pack]
    threads = 1
    windowMemory = 64m
[fetch]
    recurseSubmodules = false
    writeCommitGraph = false
    unpackLimit = 1
[transfer]
    credentialsInUrl = die
    bundleURI = false
[protocol]
    version = 2
[http]
    followRedirects = false
    lowSpeedLimit = 100
    lowSpeedTime = 30
[i18n]
    logOutputEncoding = UTF-8
[safe]
    directory = *
[credential]
    helper =
"""


@dataclass(frozen=True, slots=True)
class Access:
    """What we show and what we trust. A key, known hosts or an authority is its text (of a Secret) or a file's path."""

    login: tuple[str, str] | None = field(default=None, repr=False)
    ssh_key: bytes | Path | None = field(default=None, repr=False)
    known_hosts: bytes | Path | None = None
    ca: bytes | Path | None = None


def access(address: GitAddress, config: GitConfig, secret: Mapping[str, bytes] | None) -> Access:
    """What to show to `address`: what the Secret holds, else what the configuration names. Raises `Invalid`."""
    given = secret or {}
    login = None
    if secret is not None:
        _check(address, given)
        if (password := given.get("token", given.get("password"))) is not None:
            login = _line(given, "username") or _ANYBODY, _text(password, "token" if "token" in given else "password")
    return Access(
        login,
        given.get("sshKey") or _path(config.ssh_key),
        given.get("knownHosts") or _path(config.known_hosts),
        given.get("ca") or _path(config.ca),
    )


def _check(address: GitAddress, given: Mapping[str, bytes]) -> None:
    if unknown := sorted(set(given) - set(KEYS)):
        raise Invalid(f"the Secret under auth has {', '.join(unknown)}", advice=f"It may have {', '.join(KEYS)}.")
    wanted = {"https": ("token", "password", "ca"), "http": ("token", "password"), "ssh": ("sshKey", "knownHosts")}
    names = wanted.get(address.scheme, ())
    if names and not set(names) & set(given):
        raise Invalid(
            f"the Secret under auth has nothing for {address.scheme}", advice=f"Put {' or '.join(names)} into it."
        )


def _line(given: Mapping[str, bytes], name: str) -> str:
    return _text(given[name], name) if name in given else ""


def _text(value: bytes, name: str) -> str:
    text = value.decode("utf-8", "replace").rstrip("\r\n")
    if not text or not text.isprintable():
        raise Invalid(f"{name} in the Secret under auth is not one line of text", advice="Write it anew.")
    return text


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


@contextlib.contextmanager
def environment(parent: Path, pinned: Path, address: GitAddress, shown: Access) -> Iterator[dict[str, str]]:
    """git's environment for talking to `address`, good inside the block; its files lie in a new folder in `parent`.

    `pinned`: the file of host keys that were met first, used when no known hosts are given.
    """
    fsio.make_private(parent)
    with fsio.staging(parent, "git") as folder:
        config = _CONFIG + _config(folder, address, shown)
        fsio.write_atomic(folder / "config", config.encode(), durable=False)
        env = {
            **READING,
            "GIT_ALLOW_PROTOCOL": address.scheme,
            "GIT_CONFIG_GLOBAL": str(folder / "config"),
            "GIT_SSH_COMMAND": shlex.join(_ssh(folder, pinned, shown)),
            "GIT_SSH_VARIANT": "ssh",
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder),
        }
        if address.scheme == "https":
            env.update({name: os.environ[name] for name in _PROXIES if name in os.environ})
        yield env


def _config(folder: Path, address: GitAddress, shown: Access) -> str:
    lines = []
    if address.scheme == "https" and (ca := _file(folder, "ca", shown.ca)) is not None:
        lines += ["[http]", f"    sslCAInfo = {_quoted(str(ca))}"]
    if shown.login is not None and address.scheme in ("https", "http"):
        name, password = (quote(part, safe="") for part in shown.login)
        line = f"{address.scheme}://{name}:{password}@{address.origin.partition('://')[2]}\n"
        stored = _file(folder, "login", line.encode())
        lines += [
            f"[credential {_quoted(address.origin)}]",
            f"    helper = {_quoted(f'store --file={shlex.quote(str(stored))}')}",
        ]
    return "\n".join([*lines, ""])


def _quoted(text: str) -> str:
    """A value for git's configuration."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _ssh(folder: Path, pinned: Path, shown: Access) -> list[str]:
    """ssh that asks nobody, reads no configuration, and offers the one key. Without known hosts the key that a server
    shows first is pinned; another one is refused from then on."""
    known = _file(folder, "known_hosts", shown.known_hosts)
    key = _file(folder, "key", shown.ssh_key)
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes" if known is not None else "accept-new",
        "UserKnownHostsFile": _ssh_path(known or pinned),
        "GlobalKnownHostsFile": "/dev/null",
        "UpdateHostKeys": "no",
        "HashKnownHosts": "no",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "IdentityFile": "none" if key is None else _ssh_path(key),
        "ForwardAgent": "no",
        "ClearAllForwardings": "yes",
        "PermitLocalCommand": "no",
        "ProxyCommand": "none",
        "ControlPath": "none",
        "ConnectTimeout": "20",
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "3",
    }
    return ["ssh", "-F", "none", *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))]


def _ssh_path(path: Path) -> str:
    """A path as ssh's options take it: it would part them at spaces, and put other things in for `%`."""
    return '"' + str(path).replace("%", "%%") + '"'


def _file(folder: Path, name: str, content: bytes | Path | None) -> Path | None:
    """The file that holds `content`: the one named, or a new one for ourselves alone."""
    if content is None or isinstance(content, Path):
        return content
    path = folder / name
    fsio.write_atomic(path, content if content.endswith(b"\n") else content + b"\n", durable=False)
    return path


def certificate_fault(address: GitAddress, ca: bytes | Path | None) -> int:
    """Look at the server's certificate ourselves, since git's library does not say what is wrong with it: OpenSSL's
    code (X509_V_ERR_*); 0: nothing, or it cannot be told. Sends nothing but a handshake."""
    import ssl  # needed by few runs

    host = address.host.strip("[]")
    try:
        context = ssl.create_default_context(
            cafile=str(ca) if isinstance(ca, Path) else None, cadata=ca.decode() if isinstance(ca, bytes) else None
        )
        with (
            socket.create_connection((host, address.port or 443), _SECONDS_TO_LOOK) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return 0
    except ssl.SSLCertVerificationError as error:
        return error.verify_code
    except (OSError, ValueError):
        return 0


def bounded(argv: Sequence[str], *, memory: int, file: int, cpu: int) -> list[str]:
    """`argv`, in a process that may take so many bytes of address space, write files of so many bytes, and use so many
    seconds of a processor: the kernel's own limits, so that no pack can get round them."""
    limits = ("-c 0", f"-v {memory >> 10}", f"-f {file >> 9}", f"-t {cpu}")
    tries = "; ".join(f"ulimit {limit} 2>/dev/null || :" for limit in limits)  # a stricter one that is there stays
    return ["/bin/sh", "-c", f'{tries}; exec "$@"', "git", *argv]
