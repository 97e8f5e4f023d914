"""Reading the configuration: a file, or none, to a checked `Config`. Nothing below this floor knows of files for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from core.errors import Invalid, NotFound, from_os_error
from core.fsio import read_bounded
from reconciler.model.config import Config
from reconciler.model.kinds.checking import check_model
from reconciler.model.problems import shown
from reconciler.sources.faults import Fault
from reconciler.sources.manifests import MOST_BYTES, read_documents

DEFAULT_FILE: Final = Path("/etc/reconciler/config.yaml")


class BadConfig(Invalid):
    """The configuration cannot be used; `faults` are all that is wrong with it, each with its place."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        super().__init__(f"{faults[0]}{more}", advice="Correct the file; nothing was changed.")
        self.faults = tuple(faults)


def config_file(given: str | None) -> Path | None:
    """The file in force: the one given, else the default one where there is one and we are root; None: none."""
    if given:
        return Path(os.path.abspath(given))
    return DEFAULT_FILE if os.geteuid() == 0 and DEFAULT_FILE.exists() else None


def load_config(file: Path | None) -> Config:
    """The configuration in `file`; None: all defaults. Raises `BadConfig`, `NotFound` and what reading raises."""
    if file is None:
        return Config()
    try:
        data = read_bounded(file, MOST_BYTES)
    except FileNotFoundError:
        raise NotFound(
            f"the configuration {file} is not there", advice="Correct --config or RECONCILER_CONFIG."
        ) from None
    except OSError as error:
        raise from_os_error(error, f"reading {file}") from error
    return parse_config(data, str(file))


def parse_config(data: bytes, name: str) -> Config:
    """The configuration that `data` (YAML, one document) holds; raises `BadConfig` with every fault."""
    documents, faults = read_documents(data, name)
    faults = [*faults, *(fault for document in documents for fault in document.faults)]
    if len(documents) > 1:
        faults.append(Fault(name, *documents[1].root.mark, "", "a configuration is one document", "join the two"))
    if not faults and documents:
        root = documents[0].root
        value = root.value
        if not isinstance(value, dict) or "version" not in value:
            faults.append(Fault(name, *root.mark, "", "has no version", "add version: 2"))
        else:
            for problem in check_model(Config, value):
                place = root.place(problem.path, at_key=problem.at_key)
                faults.append(Fault(name, *place, shown(problem.path), problem.message, problem.advice))
    if faults:
        raise BadConfig(sorted(faults))
    return Config.model_validate(documents[0].root.value) if documents else Config()
