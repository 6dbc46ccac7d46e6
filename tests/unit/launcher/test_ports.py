"""Ports for what is started next: outside the kernel's own range, and never the same for two demos."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import ports
from launcher.ports import claimed_ports, free_port, is_free


def test_a_port_that_someone_listens_on_is_not_free() -> None:
    port = free_port()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        assert not is_free(port)
    assert is_free(port)


def test_the_kernel_gives_a_free_port_to_no_connection_of_its_own() -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if high - low > 50_000:
        pytest.skip("the kernel's range is nearly everything here")
    assert not any(low <= free_port() <= high for _ in range(50))


def test_where_the_kernel_s_range_is_everything_any_free_port_will_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    everything = tmp_path / "range"
    everything.write_text("1024\t65535\n")
    monkeypatch.setattr(ports, "_KERNEL_RANGE", everything)
    assert is_free(free_port())


def test_two_demos_that_start_together_take_different_ports() -> None:
    wanted = {"miner": free_port(), "verifier": free_port()}
    with claimed_ports(wanted) as first:
        assert first == wanted
        with claimed_ports(wanted) as second:  # nobody listens yet
            assert not set(second.values()) & set(first.values())
    with claimed_ports(wanted) as again:
        assert again == wanted


def test_a_port_that_is_taken_is_replaced() -> None:
    port = free_port()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        with claimed_ports({"miner": port}) as chosen:
            assert chosen["miner"] != port


def test_a_killed_demo_claims_nothing() -> None:
    port = free_port()
    program = (
        "import signal\nfrom launcher.ports import claimed_ports\n"
        f"with claimed_ports({{'miner': {port}}}):\n    print('claimed', flush=True)\n    signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "claimed\n"
        with claimed_ports({"miner": port}) as chosen:
            assert chosen["miner"] != port
        holder.kill()
    with claimed_ports({"miner": port}) as chosen:
        assert chosen["miner"] == port
