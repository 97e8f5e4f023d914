#!/usr/bin/env python3
"""Builds, from Debian packages, the images that tests, the demo and the measurements use.

    scripts/test_images.py [IMAGE…]      prints the path of each image's OCI layout (tag `latest`), one a line

- `busybox`: one layer of 1 MB: a static busybox, its applets as hard links, users root, daemon, www (1000) and nobody
- `web`: busybox's layer, the C library, nginx-light, a page; listens where /etc/nginx/conf.d/default.conf says (8080)
- `web2`: the same but for its last layer, the page
- `debian-big`: a debootstrap root and real packages in five layers, with everything a layer can hold (needs root)

The layouts are kept in `$XDG_CACHE_HOME/reconciler-test` (as root `/var/cache/reconciler-test`) and made anew when this
file changes. Layers are deterministic for one set of package versions: fixed order, times clamped, plain zlib. Only the
standard library is used, so that any Python 3.11 can run it.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

EPOCH: Final = 1_700_000_000  # seconds; no file in a layer is newer
CREATED: Final = "2023-11-14T22:13:20Z"  # EPOCH in the form the image configuration wants
PATH_ENV: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MERGED: Final = ("bin", "sbin", "lib", "lib64")  # links into /usr, as Debian has had them since 12
GZIP_WBITS: Final = 31  # zlib's way to say: with a gzip header (its time is 0)
CHUNK: Final = 1 << 20

PASSWD: Final = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www:x:1000:1000:web server:/var/www:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
"""
GROUP: Final = """\
root:x:0:
daemon:x:1:
staff:x:50:www
www:x:1000:
nogroup:x:65534:
"""
NGINX_CONF: Final = """\
# Everything nginx writes goes to its output and to /tmp, so that a read-only root with a tmpfs there is enough.
user www;
worker_processes 1;
pid /tmp/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 128; }
http {
    include mime.types;
    access_log /dev/stdout;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    include conf.d/*.conf;
}
"""
NGINX_SITE: Final = """\
server {
    listen 8080;
    root /var/www/html;
}
"""
LIBRARIES: Final = ("libc6", "libcrypt1", "libpcre2-8-0", "libssl3", "zlib1g")
NGINX: Final = ("nginx-light", "nginx", "nginx-common")
TOOLS: Final = ("python3", "python3-pip", "perl", "git")
COMPILER: Final = ("gcc", "linux-headers-amd64")


@dataclass(frozen=True)
class Layer:
    """A layer's blob: digest and size (bytes) as compressed, and the digest of its tar."""

    path: Path
    digest: str
    size: int
    diff_id: str


@dataclass(frozen=True)
class Workshop:
    """Where one version of this script keeps its results: `layers/NAME/`, and a layout folder for each image."""

    folder: Path

    def layer(self, name: str, fill: Callable[[Path], None]) -> Layer:
        """The layer of that name, taken from an earlier run or filled (a folder is handed to `fill`) and packed now."""
        kept = self.folder / "layers" / name
        if not kept.exists():
            with staged(kept) as work:
                tree = work / "tree"
                tree.mkdir(mode=0o755)
                fill(tree)
                digest, size, diff_id = pack(tree, work / "blob")
                (work / "layer.json").write_text(json.dumps({"digest": digest, "size": size, "diff_id": diff_id}))
                for left in (path for path in work.iterdir() if path.is_dir()):
                    shutil.rmtree(left)
        return Layer(path=kept / "blob", **json.loads((kept / "layer.json").read_text()))

    def image(self, name: str, layers: Sequence[Layer], config: Mapping[str, object]) -> None:
        """Writes an OCI layout (image-layout 1.0.0) of these layers, which share their blobs' bytes by hard links."""
        with staged(self.folder / name) as work:
            blobs = work / "blobs" / "sha256"
            blobs.mkdir(parents=True)
            for layer in layers:
                os.link(layer.path, blobs / layer.digest)
            rootfs = {"type": "layers", "diff_ids": [f"sha256:{layer.diff_id}" for layer in layers]}
            history = [{"created": CREATED, "created_by": "test_images.py"} for _ in layers]
            base = {"created": CREATED, "architecture": architecture(), "os": "linux"}
            config_blob = put_json(blobs, {**base, "config": config, "rootfs": rootfs, "history": history})
            manifest = put_json(
                blobs,
                {
                    "schemaVersion": 2,
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config_blob},
                    "layers": [described(layer) for layer in layers],
                },
            )
            entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", **manifest}
            entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
            (work / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
            (work / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def described(layer: Layer) -> dict[str, object]:
    """The layer's descriptor in a manifest."""
    media_type = "application/vnd.oci.image.layer.v1.tar+gzip"
    return {"mediaType": media_type, "digest": f"sha256:{layer.digest}", "size": layer.size}


def put_json(blobs: Path, document: object) -> dict[str, object]:
    """Stores a document as a blob; gives digest and size for its descriptor."""
    data = json.dumps(document, sort_keys=True).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def pack(tree: Path, blob: Path) -> tuple[str, int, str]:
    """Packs a folder as tar+gzip; gives the blob's digest and size (bytes) and the tar's digest."""
    command = ["tar", "--create", "--format=pax", "--pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f"]
    command += ["--sort=name", "--numeric-owner", "--clamp-mtime", f"--mtime=@{EPOCH}"]
    command += ["--xattrs", "--xattrs-include=security.capability", "--directory", str(tree)]
    if os.geteuid() != 0:
        command += ["--owner=0", "--group=0"]
    command += ["--", *sorted(os.listdir(tree))]
    squeeze, whole, inner = zlib.compressobj(6, zlib.DEFLATED, GZIP_WBITS), hashlib.sha256(), hashlib.sha256()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as tar, blob.open("wb") as sink:
        assert tar.stdout is not None
        while chunk := tar.stdout.read(CHUNK):
            inner.update(chunk)
            squeezed = squeeze.compress(chunk)
            whole.update(squeezed)
            sink.write(squeezed)
        last = squeeze.flush()
        whole.update(last)
        sink.write(last)
    if tar.returncode != 0:
        raise SystemExit(f"tar of {tree} ended with {tar.returncode}")
    return whole.hexdigest(), blob.stat().st_size, inner.hexdigest()


# ---------------------------------------------------------------------------------------------------- Debian packages


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """The output of a command; its complaints end this script when it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(
            f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.stdout


def architecture() -> str:
    """Debian's name of this machine's processor, which for amd64 and arm64 is also OCI's."""
    return run("dpkg", "--print-architecture").strip()


def suite_and_mirror() -> tuple[str, str]:
    """The code name of the running Debian, and the first place apt fetches it from."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    suite = release["VERSION_CODENAME"].strip('"')
    targets = run("apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages")
    places = [line.split(" ", 1)[1] for line in targets.splitlines() if line.startswith(f"{suite} ")]
    return suite, places[0] if places else "http://deb.debian.org/debian"


def fresh_package_lists() -> None:
    """Fetches apt's lists where they are missing (as in many a container image) or over a week old."""
    if os.geteuid() == 0:
        run("apt-get", "update", "-qq")


def download(packages: Sequence[str], into: Path) -> list[Path]:
    """Fetches just these packages."""
    into.mkdir()
    run("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *packages, cwd=into)
    return sorted(into.glob("*.deb"))


def download_with_needs(packages: Sequence[str], into: Path, installed: Path) -> list[Path]:
    """Fetches these packages and what they need beyond what the dpkg status file `installed` lists."""
    (into / "partial").mkdir(parents=True, exist_ok=True)
    options = [
        f"Dir::State::Status={installed}",
        f"Dir::Cache::Archives={into}",
        "Debug::NoLocking=true",
        "APT::Sandbox::User=root",
    ]
    flags = [flag for option in options for flag in ("-o", option)]
    run("apt-get", "install", "-y", "-qq", "--download-only", "--no-install-recommends", *flags, *packages)
    return sorted(into.glob("*.deb"))


def unpack(packages: Sequence[Path], tree: Path) -> None:
    """Unpacks packages side by side; what they have in /bin, /lib and so on lands under /usr."""
    merge_usr(tree)
    for package in packages:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as data:
            command = [
                "tar",
                "--extract",
                "--keep-directory-symlink",
                "--preserve-permissions",
                "--directory",
                str(tree),
            ]
            subprocess.run(command, stdin=data.stdout, check=True)
        if data.returncode != 0:
            raise SystemExit(f"{package}: dpkg-deb ended with {data.returncode}")
    for name in MERGED:
        (tree / name).unlink()


def merge_usr(tree: Path) -> None:
    """Makes /bin, /sbin, /lib and /lib64 links into /usr."""
    for name in MERGED:
        (tree / "usr" / name).mkdir(parents=True, exist_ok=True)
        (tree / name).symlink_to(f"usr/{name}")


def write(tree: Path, path: str, text: str, mode: int = 0o644) -> Path:
    """Writes a file of the tree, with the folders it needs."""
    target = tree / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(mode)
    return target


# ------------------------------------------------------------------------------------------------------------- layers


def fill_busybox(tree: Path) -> None:
    """A root with busybox, its applets, a few users, and the folders a runtime mounts on."""
    packages = download(["busybox-static"], tree.parent / "debs")
    unpack(packages, tree)
    merge_usr(tree)
    shutil.rmtree(tree / "usr/share")
    busybox = tree / "usr/bin/busybox"
    for applet in sorted(set(run(busybox, "--list").split()) - {"busybox"}):
        os.link(busybox, tree / "usr/bin" / applet)
    write(tree, "etc/passwd", PASSWD)
    write(tree, "etc/group", GROUP)
    for name in ("dev", "proc", "sys", "run", "var/www", "usr/share", "usr/lib64"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    (tree / "root").mkdir(mode=0o700)
    (tree / "tmp").mkdir()
    (tree / "tmp").chmod(0o1777)


def fill_libraries(tree: Path) -> None:
    """The C library and what nginx links with."""
    unpack(download(LIBRARIES, tree.parent / "debs"), tree)
    for unwanted in ("usr/share", *(str(p.relative_to(tree)) for p in tree.glob("usr/lib/*/gconv"))):
        shutil.rmtree(tree / unwanted)


def fill_nginx(tree: Path) -> None:
    """Debian's nginx with its configuration."""
    unpack(download(NGINX, tree.parent / "debs"), tree)
    for unwanted in ("usr/share/doc", "usr/share/man", "usr/share/lintian"):
        shutil.rmtree(tree / unwanted, ignore_errors=True)


def fill_site(version: str) -> Callable[[Path], None]:
    """A layer with the page, which names its version, and the server's configuration."""

    def fill(tree: Path) -> None:
        write(tree, "etc/nginx/nginx.conf", NGINX_CONF)
        write(tree, "etc/nginx/conf.d/default.conf", NGINX_SITE)
        write(tree, "var/www/html/index.html", f"<!doctype html><title>web</title><p>Hello from web {version}.\n")

    return fill


def fill_debian(tree: Path) -> None:
    """A debootstrap root without what differs from day to day and machine to machine."""
    suite, mirror = suite_and_mirror()
    run("debootstrap", "--variant=minbase", suite, tree, mirror)
    for pattern in (
        "var/cache/apt/*.bin",
        "var/cache/apt/archives/*.deb",
        "var/lib/apt/lists/*",
        "var/cache/ldconfig/*",
    ):
        for path in tree.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for log in (path for path in (tree / "var/log").rglob("*") if path.is_file()):
        log.write_bytes(b"")
    for name, text in (("etc/hostname", "localhost\n"), ("etc/resolv.conf", ""), ("etc/machine-id", "")):
        write(tree, name, text)
    for shadow in (tree / "etc").glob("shadow*"):  # the day of the last password change is the day of building
        lines = [line.split(":") for line in shadow.read_text().splitlines()]
        shadow.write_text("".join(":".join([*f[:2], "19675", *f[3:]]) + "\n" for f in lines))


def fill_changes(tree: Path) -> None:
    """Takes away and replaces things of the layers below: whiteouts, an opaque folder, a folder for a file and back."""
    for path in ("usr/share/doc/.wh.git", "usr/share/perl/.wh.5.36", "etc/.wh.motd", "usr/lib/git-core/.wh.git-daemon"):
        write(tree, path, "", 0o600)
    write(tree, "usr/share/zoneinfo/.wh..wh..opq", "", 0o600)
    write(tree, "usr/share/zoneinfo/UTC", "TZif-not-really\n")
    write(tree, "usr/share/common-licenses/.wh..wh..opq", "", 0o600)
    write(tree, "usr/share/common-licenses/Only", "the one left\n")
    write(tree, "etc/issue/now-a-folder", "was a file\n")
    write(tree, "etc/apt/apt.conf.d", "was a folder\n")
    write(tree, "etc/debian_version", "changed above\n")


def fill_oddities(tree: Path) -> None:
    """Hard and symbolic links, setuid and sticky bits, a file capability, a fifo, odd names, owners and holes."""
    odd = tree / "opt/oddities"
    first = write(tree, "opt/oddities/first", "one inode, three names\n")
    os.link(first, odd / "second")
    (odd / "deep/er").mkdir(parents=True)
    os.link(first, odd / "deep/er/third")
    for name, target in (("relative", "first"), ("absolute", "/etc/passwd"), ("upward", "../../../../etc/passwd")):
        (odd / name).symlink_to(target)
    (odd / "dangling").symlink_to("nowhere")
    (odd / "loop").symlink_to("loop")
    write(tree, "opt/oddities/setuid", "#!/bin/sh\nid -u\n", 0o4755)
    owned = write(tree, "opt/oddities/setgid", "#!/bin/sh\nid -g\n")
    os.chown(owned, 1000, 50)
    owned.chmod(0o2755)
    run("setcap", "cap_net_raw+ep", write(tree, "opt/oddities/capable", "#!/bin/sh\n", 0o755))
    os.mkfifo(odd / "fifo", 0o640)
    sticky = odd / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    write(tree, f"opt/oddities/{'n' * 200}/{'m' * 120}", "a path too long for a ustar header\n")
    write(tree, "opt/oddities/späce and 漢字\n", "a name with more than ASCII\n")
    with (odd / "sparse").open("wb") as sparse:
        sparse.truncate(8 << 20)
    os.utime(write(tree, "opt/oddities/old", "from 1970\n"), (1, 1))


def upper(shop: Workshop, packages: Sequence[str], below: Sequence[str]) -> Callable[[Path], None]:
    """A layer with packages and their needs beyond the debootstrap root and the packages already `below`."""

    def fill(tree: Path) -> None:
        status = shop.folder / "layers/debian.status"
        there = {path.name for path in download_with_needs(below, tree.parent / "below", status)} if below else set()
        wanted = download_with_needs([*below, *packages], tree.parent / "debs", status)
        unpack([path for path in wanted if path.name not in there], tree)

    return fill


# ------------------------------------------------------------------------------------------------------------- images


def make_busybox(shop: Workshop) -> None:
    """The image `busybox`."""
    shop.image("busybox", [shop.layer("busybox", fill_busybox)], {"Env": [PATH_ENV], "Cmd": ["sh"]})


def make_web(version: str) -> Callable[[Workshop], None]:
    """The image `web` or, with version 2, `web2`."""

    def make(shop: Workshop) -> None:
        layers = [
            shop.layer("busybox", fill_busybox),
            shop.layer("libraries", fill_libraries),
            shop.layer("nginx", fill_nginx),
            shop.layer(f"site-{version}", fill_site(version)),
        ]
        entrypoint = ["nginx", "-g", "daemon off;"]
        config = {
            "Env": [PATH_ENV],
            "Entrypoint": entrypoint,
            "StopSignal": "SIGQUIT",
            "ExposedPorts": {"8080/tcp": {}},
        }
        shop.image("web" if version == "1" else f"web{version}", layers, config)

    return make


def make_debian_big(shop: Workshop) -> None:
    """The image `debian-big`; layers are packed two at a time, for the time goes into zlib."""
    if os.geteuid() != 0:
        raise SystemExit("debian-big: debootstrap needs root")

    def debian(tree: Path) -> None:
        fill_debian(tree)
        shutil.copyfile(tree / "var/lib/dpkg/status", shop.folder / "layers/debian.status")

    first = [shop.layer("debian", debian)]
    rest = {
        "tools": upper(shop, TOOLS, ()),
        "compiler": upper(shop, COMPILER, TOOLS),
        "changes": fill_changes,
        "oddities": fill_oddities,
    }
    with ThreadPoolExecutor(2) as pool:
        layers = first + list(pool.map(lambda item: shop.layer(*item), rest.items()))
    shop.image("debian-big", layers, {"Env": [PATH_ENV], "Cmd": ["bash"]})


IMAGES: Final[Mapping[str, Callable[[Workshop], None]]] = {
    "busybox": make_busybox,
    "web": make_web("1"),
    "web2": make_web("2"),
    "debian-big": make_debian_big,
}


@contextmanager
def staged(final: Path) -> Iterator[Path]:
    """A folder to fill, which takes its final name when all went well."""
    work = final.with_name(f".staging-{final.name}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    yield work
    work.rename(final)


def cache_folder() -> Path:
    """Where everything is kept, outside of the checkout."""
    default = "/var/cache" if os.geteuid() == 0 else Path.home() / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or default) / "reconciler-test"


def main(names: Sequence[str]) -> None:
    """Makes the images that are not there yet, one run at a time, and prints where they are."""
    if unknown := set(names) - set(IMAGES):
        raise SystemExit(f"no such image: {', '.join(sorted(unknown))}; there are: {', '.join(IMAGES)}")
    key = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    shop = Workshop(cache_folder() / key)
    (shop.folder / "layers").mkdir(parents=True, exist_ok=True)
    if any(not (shop.folder / name).exists() for name in names):
        with (shop.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            missing = [name for name in names if not (shop.folder / name).exists()]
            if missing:
                fresh_package_lists()
            for name in missing:
                print(f"test_images: making {name}", file=sys.stderr)
                IMAGES[name](shop)
    for name in names:
        print(shop.folder / name)


if __name__ == "__main__":
    os.umask(0o022)
    main(sys.argv[1:] or list(IMAGES))
