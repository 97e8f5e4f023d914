"""Real git servers on loopback, for tests: git's own http-backend behind a small web server, and Debian's sshd.

`Repository` makes commits with fast-import, so that a test can have trees that no checkout would make.
"""

import base64
import os
import pwd
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Final, Self
from urllib.parse import unquote, urlsplit

from tests.registry import free_port

SSHD: Final = "/usr/sbin/sshd"
START_SECONDS: Final = 10.0
WHO: Final = "Ada <ada@example.org>"
CLEAN: Final[Mapping[str, str]] = {
    "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
    "HOME": "/nonexistent",
    "LC_ALL": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
}


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link in a commit."""

    to: str


@dataclass(frozen=True, slots=True)
class Module:
    """A submodule's place in a commit."""

    commit: str = "0123456789" * 4


Content = str | bytes | Link | Module


def git(*arguments: str | Path, folder: Path | None = None, stdin: bytes = b"") -> str:
    """Runs git in a clean environment and gives its stdout, stripped; a failure fails the test with its words."""
    done = subprocess.run(["git", *map(str, arguments)], input=stdin, capture_output=True, env=CLEAN, cwd=folder)
    assert done.returncode == 0, f"git {arguments}: {done.stderr.decode(errors='replace')}"
    return done.stdout.decode(errors="surrogateescape").strip()


@dataclass(slots=True)
class Repository:
    """A bare repository in `folder`, with `main` as its first branch."""

    folder: Path
    clock: int = 1_700_000_000

    @classmethod
    def create(cls, folder: Path) -> Self:
        """A new one, empty."""
        git("init", "--quiet", "--bare", "--initial-branch=main", folder)
        return cls(folder)

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        """Runs git in it."""
        return git("--git-dir", self.folder, *arguments, stdin=stdin)

    def tip(self, branch: str = "main") -> str:
        """The branch's commit."""
        return self.git("rev-parse", f"refs/heads/{branch}")

    def commit(
        self, files: Mapping[str, Content], subject: str = "change", *, branch: str = "main", onto: str | None = "tip"
    ) -> str:
        """Makes a commit that holds exactly `files`, and gives its id.

        `onto`: its parent: the branch's tip, where there is one; another commit; None: none, which rewrites history.
        """
        parent = (self._there(branch) or "") if onto == "tip" else onto or ""
        self.clock += 1
        words = subject.encode()
        head = f"commit refs/heads/{branch}\ncommitter {WHO} {self.clock} +0000\ndata {len(words)}\n".encode()
        body = b"".join(_changed(path, content) for path, content in files.items())
        stream = head + words + b"\n" + (f"from {parent}\n".encode() if parent else b"") + b"deleteall\n" + body
        if not parent:
            stream = f"reset refs/heads/{branch}\n\n".encode() + stream
        self.git("fast-import", "--quiet", "--force", stdin=stream)
        return self.tip(branch)

    def commit_tree(self, tree: str, subject: str = "change", branch: str = "main") -> str:
        """Makes a commit of a tree that is there, on no parent, as the branch's tip."""
        self.clock += 1
        person = f"{WHO} {self.clock} +0000"
        text = f"tree {tree}\nauthor {person}\ncommitter {person}\n\n{subject}\n".encode()
        commit = self.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=text)
        self.git("update-ref", f"refs/heads/{branch}", commit)
        return commit

    def blob(self, content: bytes) -> str:
        """Writes a file's bytes and gives their id."""
        return self.git("hash-object", "-w", "--stdin", stdin=content)

    def raw_tree(self, entries: Sequence[tuple[str, bytes, str]]) -> str:
        """Writes a tree of (mode, name, id) as they are, whatever git thinks of them, and gives its id."""
        data = b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(of) for mode, name, of in entries)
        return self.git(
            "-c", "core.looseCompression=0", "hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=data
        )

    def _there(self, branch: str) -> str | None:
        command = ["git", "--git-dir", self.folder, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}"]
        done = subprocess.run(command, capture_output=True, env=CLEAN)
        return done.stdout.decode().strip() or None


def _changed(path: str, content: Content) -> bytes:
    quoted = '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(content, Module):
        return f"M 160000 {content.commit} {quoted}\n".encode()
    mode, data = ("120000", content.to) if isinstance(content, Link) else ("100644", content)
    data = data.encode() if isinstance(data, str) else data
    return f"M {mode} inline {quoted}\ndata {len(data)}\n".encode() + data + b"\n"


# ---------------------------------------------------------------------------------------------------------------- http


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files of a server's certificate for 127.0.0.1, and of the authority that signed it."""

    ca: Path
    chain: Path
    key: Path


def make_certificate(folder: Path, *, start: str = "20200101000000Z", end: str = "20991231235959Z") -> Certificate:
    """An authority and a certificate for 127.0.0.1 and localhost, valid from `start` to `end` (YYYYMMDDHHMMSSZ)."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "openssl.cnf"
    config.write_text(
        f"[ca]\ndefault_ca=it\n[it]\ndatabase={folder}/index\nnew_certs_dir={folder}\nserial={folder}/serial\n"
        "default_md=sha256\npolicy=any\nunique_subject=no\n[any]\ncommonName=supplied\n"
        "[root]\nbasicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign,cRLSign\n"
        "[leaf]\nsubjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:false\n"
        "[req]\ndistinguished_name=name\n[name]\n"
    )
    (folder / "index").touch()
    (folder / "serial").write_text("01\n")
    always = ["-startdate", "20200101000000Z", "-enddate", "20991231235959Z"]
    for name in ("ca", "leaf"):
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{folder}/{name}.key"]
        _openssl("req", "-new", "-config", config, *key, "-subj", f"/CN=test {name}", "-out", f"{folder}/{name}.csr")
    sign = ["ca", "-batch", "-notext", "-config", config, "-keyfile", folder / "ca.key"]
    _openssl(*sign, *always, "-selfsign", "-extensions", "root", "-in", folder / "ca.csr", "-out", folder / "ca.pem")
    dates = ["-startdate", start, "-enddate", end, "-cert", folder / "ca.pem", "-extensions", "leaf"]
    _openssl(*sign, *dates, "-in", folder / "leaf.csr", "-out", folder / "leaf.pem")
    return Certificate(folder / "ca.pem", folder / "leaf.pem", folder / "leaf.key")


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    authorization: str


@dataclass(slots=True)
class HttpGit:
    """A web server for the repositories below `folder`: `url("x.git")`. Switches may be set while it runs.

    `login`: basic auth is wanted. `cut_after`: so many bytes of a pack's reply are sent, then the connection is reset.
    `redirect`: every request is sent on to that URL plus its own path. `asked`: all requests so far. `before`: called
    with each request before it is answered, in a thread of its own.
    """

    folder: Path
    certificate: Certificate | None = None
    login: tuple[str, str] | None = None
    cut_after: int | None = None
    redirect: str = ""
    asked: list[Asked] = field(default_factory=list)
    before: Callable[[Asked], object] | None = None
    port: int = 0
    _server: ThreadingHTTPServer | None = None

    def url(self, name: str) -> str:
        """The URL of a repository here."""
        return f"http{'s' if self.certificate else ''}://127.0.0.1:{self.port}/{name}"

    def start(self) -> Self:
        """Starts it, on the same port as before if it ran before."""
        served = self

        class Handler(_Bridge):
            git = served

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        if self.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate.chain, self.certificate.key)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self) -> None:
        """Stops it; nobody listens on its port then."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Bridge(BaseHTTPRequestHandler):
    """One request to `git http-backend`, as RFC 3875 has it."""

    git: HttpGit
    timeout = 30

    def do_GET(self) -> None:
        """The list of refs."""
        self._serve()

    def do_POST(self) -> None:
        """Everything else."""
        self._serve()

    def log_message(self, *_: object) -> None:
        """Tests print nothing."""

    def handle(self) -> None:
        """A peer that goes away is no news."""
        with suppress(OSError):
            super().handle()

    def _serve(self) -> None:
        given = self.headers.get("Authorization", "")
        asked = Asked(self.command, self.path, given)
        self.git.asked.append(asked)
        body = self._body()
        if self.git.before is not None:
            self.git.before(asked)
        if self.git.redirect:
            self.send_response(301)
            self.send_header("Location", self.git.redirect + self.path)
            self.end_headers()
            return
        if self.git.login is not None and given != _basic(self.git.login):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="test"')
            self.end_headers()
            return
        self._bridge(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _bridge(self, body: bytes) -> None:
        split = urlsplit(self.path)
        env = {
            **CLEAN,
            "GIT_PROJECT_ROOT": str(self.git.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": unquote(split.path),
            "QUERY_STRING": split.query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(["git", "http-backend"], input=body, stdout=subprocess.PIPE, env=env)
        head, _, reply = done.stdout.partition(b"\r\n\r\n")
        fields = [line.partition(": ") for line in head.decode().split("\r\n")]
        status = next((value for name, _, value in fields if name == "Status"), "200 OK")
        self.send_response(int(status.split()[0]))
        for name, _, value in fields:
            if name != "Status":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        if self.git.cut_after is not None and self.command == "POST" and b"packfile" in reply:
            reply = reply[: self.git.cut_after]
        self.wfile.write(reply)


def _basic(login: tuple[str, str]) -> str:
    return "Basic " + base64.b64encode(":".join(login).encode()).decode()


# ----------------------------------------------------------------------------------------------------------------- ssh


def make_key(path: Path) -> Path:
    """A new ed25519 key at `path`, with its public half beside it."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


@dataclass(slots=True)
class SshGit:
    """sshd for our own user, who may log in with the key `client` and nothing else; `url` for any folder's path."""

    folder: Path
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _log: IO[bytes] | None = None

    @property
    def user(self) -> str:
        """Who logs in."""
        return pwd.getpwuid(os.geteuid()).pw_name

    @property
    def client(self) -> Path:
        """The private key that is let in."""
        return self.folder / "client"

    @property
    def known_hosts(self) -> Path:
        """A file with the server's key, for its address."""
        return self.folder / "known_hosts"

    def url(self, repository: Path) -> str:
        """The address of a repository on this machine."""
        return f"ssh://{self.user}@127.0.0.1:{self.port}{repository}"

    def start(self) -> Self:
        """Starts it, on the same port and with the same keys as before if it ran before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.port == 0:
            self.port = free_port()
            for name in ("host", "client"):
                make_key(self.folder / name)
            shutil.copy(self.folder / "client.pub", self.folder / "authorized_keys")
        self.write_known_hosts()
        self._config().write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder}/host\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nStrictModes no\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nAcceptEnv GIT_PROTOCOL\n"
            "X11Forwarding no\nPrintMotd no\nUseDNS no\n"
        )
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        self._log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen([SSHD, "-D", "-e", "-f", self._config()], stderr=self._log)
        self._wait()
        return self

    def new_host_key(self) -> None:
        """Gives it another key, as a machine that took its address would have; for the next start."""
        for name in ("host", "host.pub"):
            (self.folder / name).unlink()
        make_key(self.folder / "host")

    def write_known_hosts(self) -> None:
        """Writes the server's key as it is now to `known_hosts`."""
        key = (self.folder / "host.pub").read_text()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {key}")

    def stop(self) -> None:
        """Stops it, and the sessions that it has."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_SECONDS)
            self._process = None
        if self._log is not None:
            self._log.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _config(self) -> Path:
        return self.folder / "sshd_config"

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            scan = ["ssh-keyscan", "-p", str(self.port), "127.0.0.1"]
            if subprocess.run(scan, capture_output=True).stdout:
                return
            time.sleep(0.05)
        raise RuntimeError(f"sshd does not start: {(self.folder / 'log').read_text()[-2000:]}")


def missing_tools() -> list[str]:
    """What the servers need which is not on this machine."""
    lacking = [name for name in ("git", "ssh", "ssh-keygen", "openssl") if shutil.which(name) is None]
    return lacking if os.path.exists(SSHD) else [*lacking, "sshd (openssh-server)"]
