"""Devices by CDI name."""

from typing import Any

import pytest

from core.errors import AgentError, Invalid, NotFound, Unsupported
from core.runtime.cdi import Specification, checked, edits


def spec(priority: int = 0, file: str = "/etc/cdi/a.json", **changes: Any) -> Specification:
    """A specification of one vendor's two devices."""
    own = {"env": ["SLOT=0"], "deviceNodes": [{"path": "/dev/fake0", "hostPath": "/dev/null", "permissions": "rw"}]}
    content: dict[str, Any] = {
        "cdiVersion": "0.6.0",
        "kind": "vendor.com/gpu",
        "containerEdits": {
            "env": ["DRIVER=1"],
            "mounts": [{"hostPath": "/etc", "containerPath": "/x", "options": ["ro"]}],
        },
        "devices": [
            {"name": "zero", "containerEdits": own},
            {"name": "one", "containerEdits": {"additionalGids": [7]}},
        ],
    }
    return Specification(file, priority, checked({**content, **changes}, file))


def test_a_device_brings_its_own_edits_and_once_those_of_its_specification() -> None:
    found = edits(["vendor.com/gpu=zero", "vendor.com/gpu=one"], [spec()])
    assert found.env == ("DRIVER=1", "SLOT=0")
    assert [(one.path, one.major, one.minor, one.access) for one in found.devices] == [("/dev/fake0", 1, 3, "rw")]
    assert [(one.path, one.source, one.read_only) for one in found.mounts] == [("/x", "/etc", True)]
    assert found.groups == (7,)


def test_the_folder_of_higher_priority_wins_and_two_of_one_folder_are_a_conflict() -> None:
    other = {"devices": [{"name": "zero", "containerEdits": {"env": ["SLOT=9"]}}], "containerEdits": {}}
    assert edits(["vendor.com/gpu=zero"], [spec(), spec(1, "/run/cdi/b.json", **other)]).env == ("SLOT=9",)
    with pytest.raises(Invalid, match=r"is in /etc/cdi/a\.json and in /etc/cdi/b\.json"):
        edits(["vendor.com/gpu=zero"], [spec(), spec(0, "/etc/cdi/b.json", **other)])


@pytest.mark.parametrize(
    ("own", "error", "told"),
    [
        ({"hooks": [{"hookName": "createContainer", "path": "/bin/x"}]}, Unsupported, "wants a hook of the node"),
        ({"intelRdt": {}}, Unsupported, "wants intelRdt"),
        ({"deviceNodes": [{"path": "/etc/passwd"}]}, Invalid, "is not below /dev"),
        ({"deviceNodes": [{"path": "/dev/../etc/x"}]}, Invalid, "is not below /dev"),
        ({"mounts": [{"hostPath": "x", "containerPath": "/x"}]}, Invalid, "absolute"),
        ([], Invalid, "not a mapping"),
    ],
)
def test_what_is_not_given_whole_is_refused(own: object, error: type[AgentError], told: str) -> None:
    bad = spec(devices=[{"name": "zero", "containerEdits": own or [1]}])
    with pytest.raises(error, match=told):
        edits(["vendor.com/gpu=zero"], [bad])


def test_a_device_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(NotFound, match=r"it has vendor\.com/gpu=one, vendor\.com/gpu=zero"):
        edits(["vendor.com/gpu=two"], [spec()])
    with pytest.raises(NotFound, match="no specification is there"):
        edits(["vendor.com/gpu=two"], [])


@pytest.mark.parametrize("content", [[], {}, {"kind": "a/b"}, {"kind": "a/b", "devices": [1]}])
def test_what_is_no_specification_is_refused(content: object) -> None:
    with pytest.raises(Invalid):
        checked(content, "x.json")


def test_a_version_of_later_is_refused() -> None:
    with pytest.raises(Unsupported, match=r"CDI version 2\.0\.0"):
        spec(cdiVersion="2.0.0")
