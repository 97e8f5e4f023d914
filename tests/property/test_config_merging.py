"""Drop-ins of any shape: merged as plain dictionaries would be, and every value knows the file that said it last."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.config import load
from reconciler.model.config import Config
from reconciler.model.settings import plain

NAMES = st.sampled_from(["a", "b", "c"])
LABELS = st.none() | st.dictionaries(NAMES, st.none() | st.sampled_from(["x", "y"]), max_size=3)
ENTRY = st.none() | st.fixed_dictionaries({}, optional={"path": st.none() | st.sampled_from(["/p", "/q"])})
TRANSFER = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "hosts": st.none() | st.lists(st.sampled_from(["/h", "/i"]), max_size=2),
        "keepFree": st.none() | st.integers(0, 90),
        "proxy": st.none() | st.fixed_dictionaries({}, optional={"http": st.none() | st.just("http://p:1")}),
    },
)
FILE = st.fixed_dictionaries(
    {"version": st.just(2)},
    optional={
        "node": st.none() | st.fixed_dictionaries({}, optional={"labels": LABELS}),
        "transfer": TRANSFER,
        "runtimes": st.none() | st.dictionaries(NAMES, ENTRY, max_size=3),
    },
)


def merge(into: dict[str, Any], over: dict[str, Any]) -> None:
    """What is to come out, in the fewest words."""
    for key, value in over.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict):
            if not isinstance(into.get(key), dict):
                into[key] = {}
            merge(into[key], value)
        else:
            into[key] = value


@given(st.lists(FILE, min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_files_are_merged_key_by_key_and_each_value_names_its_file(files: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "conf.d").mkdir()
        paths = [folder / "config.yaml", *(folder / "conf.d" / f"{number}.yaml" for number in range(1, len(files)))]
        for path, value in zip(paths, files, strict=True):
            path.write_text(json.dumps(value))
        loaded = load(paths[0])
    wanted: dict[str, Any] = {}
    for value in files:
        merge(wanted, value)
    assert loaded.config == Config.model_validate(wanted)
    for key, origin in loaded.origins.items():
        said = files[[str(path) for path in paths].index(origin.rpartition(":")[0])]
        for part in key:
            said = said[part]
        found = plain(loaded.config)
        for part in key:
            found = found[part]
        assert found == said or said == {}
