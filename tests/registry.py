"""Debian's docker-registry on loopback, for tests: the real thing, with its storage in a folder of its own.

Images are pushed by skopeo; passwords are hashed by perl's `crypt` (bcrypt, the only form the registry takes): every
Debian has perl.
"""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

TOOLS: Final = ("docker-registry", "skopeo")
START_SECONDS: Final = 10.0
TEST_IMAGES: Final = Path(__file__).resolve().parent.parent / "scripts" / "test_images.py"

CONFIG: Final = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {storage}}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{port}"}}
"""
AUTH: Final = """\
auth:
  htpasswd: {{realm: test, path: {passwords}}}
"""


def missing_tools() -> list[str]:
    """The programs a registry needs which are not on this machine."""
    return [name for name in TOOLS if shutil.which(name) is None]


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def image_layouts(*names: str) -> list[Path]:
    """The OCI layouts (tag `latest`) of these test images, which are built first if need be."""
    done = subprocess.run([TEST_IMAGES, *names], stdout=subprocess.PIPE, text=True, check=True)
    return [Path(line) for line in done.stdout.splitlines()]


def bcrypt(password: str) -> str:
    """The password's bcrypt hash, at the least cost."""
    script = "print crypt($ARGV[0], q($2y$05$) . q(abcdefghijklmnopqrstuu))"
    return subprocess.run(["perl", "-e", script, password], capture_output=True, text=True, check=True).stdout


@dataclass(slots=True)
class Registry:
    """A registry with its storage under `folder`; with `login` (name, password) it wants basic auth for everything."""

    folder: Path
    login: tuple[str, str] | None = None
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        """What stands before the slash in a reference: `127.0.0.1:PORT`."""
        return f"127.0.0.1:{self.port}"

    @property
    def storage(self) -> Path:
        """The folder of blobs and repositories, for tests that damage them."""
        return self.folder / "storage"

    @property
    def log(self) -> Path:
        """What the registry wrote to its stderr."""
        return self.folder / "log"

    def start(self) -> Self:
        """Starts it and waits until it answers; a port that someone else took meanwhile is given up for another one."""
        for _ in range(3):
            self.port = self.port or free_port()
            command = ["docker-registry", "serve", self._write_config()]
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
            if self._answers(time.monotonic() + START_SECONDS):
                return self
            self.stop()
            self.port = 0
        raise RuntimeError(f"docker-registry does not start: {(self.folder / 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        """Stops it; its port and storage stay, so that `start` brings the same registry back."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(START_SECONDS)
            self.process = None

    def push(self, layout: Path, ref: str) -> str:
        """Copies tag `latest` of an OCI layout to `NAME:TAG` here, bytes unchanged; gives the full reference."""
        target = f"{self.host}/{ref}"
        command = ["skopeo", "--insecure-policy", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"]
        if self.login is not None:
            command += ["--dest-creds", ":".join(self.login)]
        subprocess.run([*command, f"oci:{layout}:latest", f"docker://{target}"], check=True)
        return target

    def digest(self, ref: str) -> str:
        """The digest of `NAME:TAG`, asked with `skopeo inspect`."""
        command = ["skopeo", "inspect", "--tls-verify=false", "--no-tags", f"docker://{self.host}/{ref}"]
        if self.login is not None:
            command[2:2] = ["--creds", ":".join(self.login)]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        return str(found["Digest"])

    def _write_config(self) -> Path:
        text = CONFIG.format(storage=self.storage, port=self.port)
        if self.login is not None:
            passwords = self.folder / "htpasswd"
            passwords.write_text(f"{self.login[0]}:{bcrypt(self.login[1])}\n")
            text += AUTH.format(passwords=passwords)
        config = self.folder / "config.yml"
        config.write_text(text)
        return config

    def _answers(self, deadline: float) -> bool:
        assert self.process is not None
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://{self.host}/v2/", timeout=1):
                    return True
            except urllib.error.HTTPError as answer:
                with answer:
                    return answer.code == 401
            except OSError:
                time.sleep(0.02)
        return False


def push_all(registry: Registry, names: Sequence[str]) -> None:
    """Pushes test images as `NAME:latest`."""
    for name, layout in zip(names, image_layouts(*names), strict=True):
        registry.push(layout, f"{name}:latest")
