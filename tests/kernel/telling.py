"""A plugin of pytest: writes what comes of each test to the file that `$TOLD` names, a line of JSON each, at once."""

import json
import os

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """The call of each test, and of its set-up and tear-down what went wrong or was skipped."""
    if report.when == "call" or report.outcome != "passed":
        _tell(test=report.nodeid, when=report.when, outcome=report.outcome, why=_why(report), seconds=report.duration)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file that cannot be read, or is skipped as a whole."""
    if report.outcome != "passed":
        _tell(test=report.nodeid, when="collect", outcome=report.outcome, why=_why(report), seconds=0.0)


def _why(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return report.longreprtext


def _tell(**about: object) -> None:
    """One write a line: what is read from it is whole, also when the machine is ended."""
    fd = os.open(os.environ["TOLD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, json.dumps(about).encode() + b"\n")
    finally:
        os.close(fd)
