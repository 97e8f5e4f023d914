"""What the default network reads of its host."""

from pathlib import Path

from core.network.own import dns_of_host, routes

ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


def test_routes_are_read_as_networks() -> None:
    assert routes(ROUTES) == ["0.0.0.0/0", "192.0.2.0/24"]
    assert routes("") == []


def test_name_servers_on_loopback_are_passed_over_for_the_next_file(tmp_path: Path) -> None:
    (tmp_path / "stub").write_text("nameserver 127.0.0.53\n")
    (tmp_path / "real").write_text("# up\nnameserver 9.9.9.9\nnameserver fe80::1%eth0\nnameserver nonsense\nsearch x\n")
    files = tuple(str(tmp_path / name) for name in ("none", "stub", "real"))
    assert dns_of_host(files) == ["9.9.9.9", "fe80::1"]
