"""AppArmor profiles that come as a text: what is taken, under which name, and what is refused."""

from __future__ import annotations

import pytest

from core.errors import Invalid
from core.runtime.apparmor import MOST_BYTES, parse

PLAIN = """# strict { and more
abi <abi/3.0>,
include <tunables/global>
@{home}=/home /root

profile strict flags=(attach_disconnected, mediate_deleted) {
  #include <abstractions/base>
  include if exists <local/strict>
  file,
  /{,usr/}bin/** ix,
  signal (send, receive) peer=strict,
  signal peer=strict-helper,
  change_profile -> strict,
  deny "/etc/a } b" r,
  profile inner { file, }
}
"""


def test_a_profile_is_known_by_the_name_in_its_text() -> None:
    assert parse(PLAIN.encode(), "it").name == "strict"


def test_a_profile_gets_another_name_wherever_it_speaks_of_itself() -> None:
    text = parse(PLAIN.encode(), "it").renamed("reconciler-1-2")
    assert "profile reconciler-1-2 flags=" in text
    assert "peer=reconciler-1-2,\n" in text
    assert "change_profile -> reconciler-1-2," in text
    assert "peer=strict-helper," in text
    assert "<local/strict>" in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "file,",
        "profile a { file, }\nprofile b { file, }",
        "profile a { file, }\n/usr/sbin/sshd { file, }",
        "profile a /usr/sbin/sshd { file, }",
        "/usr/sbin/sshd { file, }",
        "profile /usr/sbin/sshd { file, }",
        "profile a flags=(complain) xattrs=(user.x=1) { file, }",
        "profile { file, }",
    ],
)
def test_what_is_not_one_profile_for_tasks_alone_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="not one profile"):
        parse(text.encode(), "it")


@pytest.mark.parametrize(
    "include",
    [
        '#include "/etc/shadow"',
        "include /etc/shadow",
        "include <../../shadow>",
        'file, include "x"',
        "include if exists x",
    ],
)
def test_a_profile_reads_no_file_but_the_nodes_own_parts(include: str) -> None:
    with pytest.raises(Invalid, match="includes"):
        parse(f"profile a {{\n {include}\n}}\n".encode(), "it")


def test_what_is_too_large_or_no_text_is_refused() -> None:
    with pytest.raises(Invalid, match="larger than"):
        parse(b" " * (MOST_BYTES + 1), "it")
    with pytest.raises(Invalid, match="no AppArmor profile"):
        parse(b"\xff\xfe", "it")
