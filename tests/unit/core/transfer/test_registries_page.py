"""What docs/registries.md shows is what the program reads."""

import re
from pathlib import Path
from typing import Final

from core.transfer import reference
from core.transfer.auth import Credentials
from core.transfer.endpoints import Can
from core.transfer.hosts import endpoints
from core.transfer.logins import parse_logins
from core.transfer.proxies import Proxies
from reconciler.config import parse_config
from reconciler.translation import transfer_settings

PAGE: Final = (Path(__file__).resolve().parents[4] / "docs" / "registries.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert isinstance(found, str)
    return found


def test_the_configuration_is_taken_and_means_what_the_page_says() -> None:
    settings = transfer_settings(parse_config(block("yaml config").encode(), "config.yaml").transfer)
    assert settings.hosts == (Path("/etc/reconciler/certs.d"), Path("/etc/containerd/certs.d"))
    assert settings.plain == {"registry.local:5000"}
    assert (settings.parallel, settings.keep_free) == (4, 10)
    proxies = Proxies.of(*settings.proxy)
    assert proxies.choose("https", "a.example.org", 443) is None
    assert proxies.choose("https", "registry.local", 5000) is None
    through = proxies.choose("https", "docker.io", 443)
    assert through is not None
    assert through.login == "user:secret"
    assert "secret" not in repr(settings)


def test_the_hosts_file_is_taken_and_asked_in_its_order(tmp_path: Path) -> None:
    (tmp_path / "docker.io").mkdir()
    (tmp_path / "docker.io" / "hosts.toml").write_text(block("toml"))
    mirror, cache, own = endpoints(reference.parse("nginx"), [tmp_path])
    assert (mirror.base, mirror.can) == ("https://mirror.example.org/v2", {Can.PULL, Can.RESOLVE})
    assert (cache.base, cache.can) == ("https://cache.example.org:8443/v2/hub", {Can.PULL})
    assert (cache.connect_seconds, cache.headers) == (5.0, {"x-site": "north"})
    assert own.base == "https://registry-1.docker.io/v2"


def test_the_file_of_logins_is_taken() -> None:
    kept = parse_logins(block("json").encode(), "docker.json")
    assert kept.find("registry.example.org", "team/app", None) == Credentials("node", "correct-horse")
    assert kept.helpers == {"123.dkr.ecr.eu-central-1.amazonaws.com": "ecr-login"}
    assert kept.store == "pass"
