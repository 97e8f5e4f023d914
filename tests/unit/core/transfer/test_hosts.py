"""containerd's hosts.toml folders, read as they are."""

from pathlib import Path

import pytest

from core.errors import AgentError, Invalid
from core.transfer import reference
from core.transfer.endpoints import Can, Endpoint, Trust
from core.transfer.hosts import endpoints

HUB = reference.parse("nginx")
OWN = reference.parse("reg.example:5000/app:1")


def lay(folder: Path, name: str, text: str, file: str = "hosts.toml") -> Path:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / file).write_text(text)
    return folder / name / file


def bases(found: tuple[Endpoint, ...]) -> list[str]:
    return [endpoint.base for endpoint in found]


def test_without_a_folder_the_registry_itself_is_asked(tmp_path: Path) -> None:
    assert bases(endpoints(HUB, [tmp_path])) == ["https://registry-1.docker.io/v2"]
    assert bases(endpoints(reference.parse("localhost:5000/a"), [])) == ["http://localhost:5000/v2"]
    assert bases(endpoints(OWN, [], {"reg.example:5000"})) == ["http://reg.example:5000/v2"]


def test_hosts_keep_the_order_of_the_file_and_the_server_comes_last(tmp_path: Path) -> None:
    text = """
server = "https://registry-1.docker.io"
[host."https://z.example"]
[host."https://a.example:8443"]
  capabilities = ["pull"]
[host."https://m.example/proxy/hub"]
"""
    lay(tmp_path, "docker.io", text)
    found = endpoints(HUB, [tmp_path])
    assert bases(found) == [
        "https://z.example/v2",
        "https://a.example:8443/v2",
        "https://m.example/proxy/hub/v2",
        "https://registry-1.docker.io/v2",
    ]
    assert found[1].can == {Can.PULL}
    assert found[0].can == found[3].can == set(Can)
    assert [endpoint.namespace for endpoint in found] == ["docker.io", "docker.io", "docker.io", ""]


def test_without_a_server_the_registry_comes_last(tmp_path: Path) -> None:
    lay(tmp_path, "docker.io", '[host."https://m.example"]\n')
    assert bases(endpoints(HUB, [tmp_path]))[-1] == "https://registry-1.docker.io/v2"


@pytest.mark.parametrize("name", ["reg.example_5000_", "reg.example:5000", "_default"])
def test_a_folder_has_three_names(tmp_path: Path, name: str) -> None:
    lay(tmp_path, name, '[host."https://m.example"]\n')
    assert bases(endpoints(OWN, [tmp_path])) == ["https://m.example/v2", "https://reg.example:5000/v2"]


def test_the_named_folder_is_taken_before_the_default_one_and_the_first_place_before_the_second(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    for folder in (first, second):
        folder.mkdir()
        lay(folder, "_default", f'[host."https://default{folder.name}.example"]\n')
    lay(second, "docker.io", '[host."https://two.example"]\n')
    assert bases(endpoints(HUB, [first, second]))[0] == "https://default1.example/v2"
    lay(first, "docker.io", '[host."https://one.example"]\n')
    assert bases(endpoints(HUB, [first, second]))[0] == "https://one.example/v2"


def test_every_key_of_a_host_is_read(tmp_path: Path) -> None:
    text = """
ca = "up.pem"
[host."https://m.example/v2/mirror"]
  capabilities = ["pull", "Resolve", "push", "referrers"]
  ca = ["one.pem", "/etc/two.pem"]
  client = [["c.pem", "k.pem"], ["both.pem", ""]]
  skip_verify = true
  override_path = true
  dial_timeout = "1m1.5s"
  something_newer = 5
  [host."https://m.example/v2/mirror".header]
    x-one = "a"
    x-two = ["b", "c"]
"""
    file = lay(tmp_path, "docker.io", text)
    mirror, own = endpoints(HUB, [tmp_path])
    beside = file.parent
    assert mirror.base == "https://m.example/v2/mirror"
    assert mirror.trust == Trust(
        (beside / "one.pem", Path("/etc/two.pem")),
        ((beside / "c.pem", beside / "k.pem"), (beside / "both.pem", None)),
        skip_verify=True,
    )
    assert mirror.headers == {"x-one": "a", "x-two": "b, c"}
    assert mirror.connect_seconds == 61.5
    assert own.trust == Trust((beside / "up.pem",))


@pytest.mark.parametrize(
    ("client", "pairs"), [('"c.pem"', [("c.pem", None)]), ('["a.pem", "b.pem"]', [("a.pem", None), ("b.pem", None)])]
)
def test_a_client_certificate_may_hold_its_key(
    tmp_path: Path, client: str, pairs: list[tuple[str, str | None]]
) -> None:
    file = lay(tmp_path, "docker.io", f"client = {client}\n")
    assert endpoints(HUB, [tmp_path])[0].trust.client == tuple((file.parent / cert, None) for cert, _ in pairs)


def test_a_plain_host_with_tls_settings_is_asked_by_https_first(tmp_path: Path) -> None:
    lay(tmp_path, "docker.io", '[host."http://m.example:80"]\n  skip_verify = true\n')
    assert bases(endpoints(HUB, [tmp_path]))[:2] == ["https://m.example:80/v2", "http://m.example:80/v2"]


def test_without_a_hosts_toml_dockers_files_count(tmp_path: Path) -> None:
    folder = lay(tmp_path, "docker.io", "", "ca.crt").parent
    lay(tmp_path, "docker.io", "", "me.cert")
    with pytest.raises(Invalid, match=r"me\.cert has no key"):
        endpoints(HUB, [tmp_path])
    lay(tmp_path, "docker.io", "", "me.key")
    trust = Trust((folder / "ca.crt",), ((folder / "me.cert", folder / "me.key"),))
    assert [endpoint.trust for endpoint in endpoints(HUB, [tmp_path])] == [trust]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('server = "https://a.example"\n[host."x"\n', 2, ""),
        ("server = 5\n", 1, "not a string"),
        ('\n[host."https://a.example"]\ncapabilities = ["pul"]\n', 3, "'pul' is not known"),
        ('[host."https://a.example"]\nskip_verify = "yes"\n', 2, "neither true nor false"),
        ('[host."https://a.example"]\n\nca = [1]\n', 3, "list of strings"),
        ('[host."https://a.example"]\nclient = [["a", "b", "c"]]\n', 2, "pair"),
        ('[host."https://a.example"]\ndial_timeout = "soon"\n', 2, "span of time"),
        ('[host."https://a.example"]\n[host."https://a.example".header]\nx = "a\\r\\nb: c"\n', 3, "header"),
        ('[host."ftp://a.example"]\n', 1, "neither http nor https"),
        ('[host."https://me:pw@a.example"]\n', 1, "not a URL"),
        ('[host."https://169.254.169.254"]\n', 1, "link-local"),
        ('host = ["https://a.example"]\n', 1, "not a table"),
        ('a = "\\ud800"\n', 1, ""),
    ],
)
def test_a_file_that_cannot_be_used_is_told_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    file = lay(tmp_path, "docker.io", text)
    with pytest.raises(Invalid) as caught:
        endpoints(HUB, [tmp_path])
    assert caught.value.message.startswith(f"{file}:{line}: ")
    assert words in caught.value.message


def test_a_file_that_is_not_text_or_too_large_is_refused(tmp_path: Path) -> None:
    file = lay(tmp_path, "docker.io", "")
    file.write_bytes(b"# fine\n\xff")
    with pytest.raises(Invalid, match=f"{file}:2: not UTF-8"):
        endpoints(HUB, [tmp_path])
    file.write_bytes(b"#" * (2 << 20))
    with pytest.raises(AgentError):
        endpoints(HUB, [tmp_path])
