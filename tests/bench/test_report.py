"""The benchmark's texts: what they say of hits and misses, and that no page is out of step with the figures."""

from pathlib import Path

import pytest

from tests.bench import report
from tests.bench.report import Report, Row

FASTER = Row("pull", ours=(1.0, 3.0, 2.0), peer="ctr", theirs=(2.0, 2.0, 2.0), goal=1.0)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (FASTER, "hit"),
        (Row("pull", ours=(3.0,), peer="ctr", theirs=(2.0,), goal=1.0), "miss"),
        (Row("idle", "MB", ours=(44.0,), goal=45, bound=60), "hit"),
        (Row("idle", "MB", ours=(50.0,), goal=45, bound=60), "promise kept, goal missed"),
        (Row("idle", "MB", ours=(61.0,), goal=45, bound=60), "miss"),
        (Row("help", ours=(0.1,)), ""),
        (Row("pull", peer="ctr", goal=1.0, skipped="ctr is not installed"), "skipped: ctr is not installed"),
    ],
)
def test_a_row_says_whether_its_goal_was_hit(row: Row, verdict: str) -> None:
    assert row.verdict == verdict
    assert len(row.cells()) == len(report.HEADS)


def test_ratios_are_taken_round_by_round() -> None:
    assert FASTER.ratios == (0.5, 1.5, 1.0)
    assert FASTER.cells()[3] == "1.00 (0.50–1.50)"


def test_figures_keep_three_digits_that_count() -> None:
    assert [report.figure(value, "s") for value in (123.4, 12.34, 1.234, 0.1234, 0.0123)] == [
        "123 s",
        "12.3 s",
        "1.23 s",
        "0.12 s",
        "0.012 s",
    ]


def test_the_table_goes_between_the_markers_and_nowhere_else() -> None:
    text = f"above\n{report.BEGIN}\nold\n{report.END}\nbelow\n"
    assert report.with_table(text, "new") == f"above\n{report.BEGIN}\nnew\n{report.END}\nbelow\n"
    with pytest.raises(ValueError, match="no markers"):
        report.with_table("no place for it", "new")


def test_the_page_is_what_its_figures_make() -> None:
    if not report.DATA.exists():
        pytest.skip("no figures yet: make bench")
    assert report.PAGE.read_text() == Report.load().page()


def test_the_readme_has_the_table_of_the_figures() -> None:
    text = Path(report.README).read_text()
    if report.BEGIN not in text:
        pytest.skip("README.md has no place for the table yet")
    assert text == report.with_table(text, Report.load().table())
