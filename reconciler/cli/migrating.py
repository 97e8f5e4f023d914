"""The work of `reconciler config migrate`: files in, a document and a report out.

Rules of this file: everything is read, checked and brought to its end before anything is written. In place, each file
is kept beside itself first; when one cannot be written, those that were are put back.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from core.errors import Invalid, NotFound, from_os_error
from core.fsio import fsync_dir, read_bounded, read_if_there, write_atomic
from migrations.config import imports, migrate
from migrations.config.masking import masked
from migrations.config.work import LATEST, Settings
from reconciler.cli.accounts import as_json, as_table
from reconciler.cli.terminal import tell

MOST_BYTES: Final = 1 << 20
_PRIVATE: Final = 0o600
_PUBLIC: Final = 0o644


class Wanted(NamedTuple):
    """What the person asked for. `to`: a version of containerd's, or None for ours."""

    file: str
    theirs: bool
    to: int | None
    write: bool
    out: str | None
    report: str
    strict: bool


class _Disk:
    """The files of this node, for what imports them."""

    def read(self, path: str) -> bytes:
        """The bytes of a file; raises `OSError`, `OverLimit`."""
        return read_bounded(Path(path), MOST_BYTES)

    def matching(self, pattern: str) -> list[str]:
        """The files that match, sorted."""
        import glob

        return sorted(glob.glob(pattern))


def _hosts(path: str) -> bytes | None:
    return read_if_there(Path(path), MOST_BYTES)


class _Outcome(NamedTuple):
    """`texts`: each file's new text in place of its own; `result`: the one document, its report and other files."""

    result: migrate.Result
    texts: Mapping[str, bytes]
    name: str


def target_of(theirs: bool, to: str | None) -> int | None:
    """What `--to` means; raises `Invalid` for what cannot be reached."""
    if to in (None, "reconciler"):
        return LATEST if theirs and to is None else None
    if theirs and to in ("2", "3", "4"):
        return int(to)
    if not theirs and to == str(migrate.OUR_VERSION):
        return None
    known = "2, 3, 4 or reconciler" if theirs else f"{migrate.OUR_VERSION} or reconciler"
    raise Invalid(f"--to {to} cannot be reached", advice=f"It is {known}.")


def migrate_config(wanted: Wanted) -> int:
    """Do it, tell of each key, and give the exit code."""
    file = os.path.abspath(wanted.file)
    folder = os.path.abspath(wanted.out) if wanted.out else os.path.dirname(os.path.realpath(file))
    settings = Settings(folder, wanted.to is None, _hosts)
    try:
        done = _done(wanted, file, settings)
    except FileNotFoundError:
        raise NotFound(f"{wanted.file} is not there", advice="Correct the path; nothing was changed.") from None
    except OSError as error:
        raise from_os_error(error, f"reading {wanted.file}") from error
    refused = wanted.strict and done.result.dropped
    said = _deliver(wanted, done, folder, file, refused)
    if refused:
        said.append("something was dropped, and --strict was asked for" + "; nothing was written" * wanted.write)
    if wanted.report == "json":
        tell(as_json(done.result.entries).decode().rstrip())
    else:
        tell("\n".join([*as_table(done.result.entries), *said]))
    return 1 if refused else 0


def _done(wanted: Wanted, file: str, settings: Settings) -> _Outcome:
    if not wanted.theirs:
        document = migrate.read_ours(_Disk().read(file), file, settings, migrate.format_of(file))
        result = migrate.ours_to_ours(document)
        return _Outcome(result, {file: result.text}, f"config.{document.format}")
    documents = imports.read_all(file, _Disk(), settings)
    if wanted.write and wanted.to is not None:
        return _in_place(documents, wanted.to)
    if wanted.to is None:
        joined = imports.join_all(documents, LATEST)
        return _Outcome(migrate.to_ours(joined), {}, "config.yaml")
    if len(documents) == 1:
        return _Outcome(migrate.to_containerd(documents[0], wanted.to), {}, "config.toml")
    joined = imports.join_all(documents, wanted.to)
    return _Outcome(migrate.finished(joined, f"version {wanted.to}"), {}, "config.toml")


def _in_place(documents: Sequence[migrate.Document], target: int) -> _Outcome:
    """Each file by itself; imports go on being imported."""
    results = {one.work.file: migrate.to_containerd(one, target) for one in documents}
    files: dict[str, bytes] = {}
    for result in results.values():
        for name, content in result.files.items():
            if files.setdefault(name, content) != content:
                raise Invalid(
                    f"two files say something about {name}", advice="Use --out DIR, which joins the files into one."
                )
    entries = tuple(entry for result in results.values() for entry in result.entries)
    private = frozenset(name for result in results.values() for name in result.private)
    whole = migrate.Result(b"", entries, files=files, private=private)
    return _Outcome(whole, {file: result.text for file, result in results.items()}, "")


# ----------------------------------------------------------------------------------------------------------- delivery


def _deliver(wanted: Wanted, done: _Outcome, folder: str, file: str, refused: bool) -> list[str]:
    """Print or write it, and give what a person should know of that."""
    result = done.result
    if wanted.out:
        name = "config.yaml" if wanted.to is None else done.name
        text = result.text
        if wanted.to is None and not done.name.endswith(name):
            text = migrate.render(migrate.parse(text, file, "toml"), "yaml")
        files = {**result.files, name: text, "report.json": as_json(result.entries)}
        _write_all({os.path.join(folder, name): content for name, content in files.items()}, result.private, folder)
        return [f"wrote {', '.join(sorted(files))} in {wanted.out}"]
    if wanted.write:
        beside = {os.path.join(folder, name): content for name, content in result.files.items()}
        return [] if refused else _replace_all(dict(done.texts), beside, result.private, folder)
    shown = masked(result)
    sys.stdout.write(shown.decode())
    said = ["passwords are shown as ***: --write and --out write them"] if shown != result.text else []
    if result.files:
        said.append(f"--write or --out DIR writes these too: {', '.join(sorted(result.files))}")
    return said


def _write_all(files: Mapping[str, bytes], private: frozenset[str], folder: str) -> None:
    for path, content in files.items():
        secret = os.path.relpath(path, folder) in private
        parent = Path(path).parent
        parent.mkdir(mode=0o700 if secret else 0o755, parents=True, exist_ok=True)
        write_atomic(Path(path), content, mode=_PRIVATE if secret else _PUBLIC)


def _replace_all(
    texts: Mapping[str, bytes], beside: Mapping[str, bytes], private: frozenset[str], folder: str
) -> list[str]:
    """Put all texts in place, those that others import first; on an error, put back what was."""
    changed = {os.path.realpath(path): text for path, text in reversed(list(texts.items()))}
    changed = {path: text for path, text in changed.items() if Path(path).read_bytes() != text}
    old = {path: Path(path) for path in [*beside, *changed]}
    before = {path: (file.read_bytes(), file.stat().st_mode & 0o777) for path, file in old.items() if file.exists()}
    kept = {
        path: _keep(Path(path), *before[path]) for path in before if path in changed or before[path][0] != beside[path]
    }
    done: list[str] = []
    try:
        for path, content in {**beside, **changed}.items():
            done.append(path)
            if path in changed:
                write_atomic(Path(path), content, mode=before[path][1])
            else:
                _write_all({path: content}, private, folder)
    except OSError as error:
        _put_back(done, before)
        raise from_os_error(error, f"writing {done[-1]}; all files are as they were") from error
    said = [f"wrote {path}; what it was is in {kept[path]}" for path in changed]
    said += [f"wrote {path}" for path in beside]
    return said or ["nothing to do: it is of that version already"]


def _keep(path: Path, data: bytes, mode: int) -> Path:
    """A copy beside the file, under a name that is free."""
    for number in range(1, 10_000):
        copy = path.with_name(f"{path.name}.bak" if number == 1 else f"{path.name}.bak.{number}")
        if not copy.exists():
            write_atomic(copy, data, mode=mode)
            return copy
    raise Invalid(f"{path} has too many backups", advice="Remove some of them.")


def _put_back(paths: Sequence[str], before: Mapping[str, tuple[bytes, int]]) -> None:
    for path in reversed(paths):
        if path in before:
            write_atomic(Path(path), before[path][0], mode=before[path][1])
        else:
            Path(path).unlink(missing_ok=True)
            fsync_dir(Path(path).parent)
