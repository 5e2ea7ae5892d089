"""Listening addresses: checked, bound, and announced."""

import json
import socket
import subprocess
import sys

import pytest

from runtime import listen


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:8470", "[::1]:65535"])
def test_an_address_is_host_and_port(address):
    assert listen.check(address) == address
    assert listen.check_loopback(address) == address


@pytest.mark.parametrize("address", ["", "nonsense", ":8470", "host:port", "host:65536", "host:-1"])
def test_any_other_text_is_refused(address):
    with pytest.raises(ValueError, match="must be host:port"):
        listen.check(address)


def test_an_address_of_other_machines_is_not_loopback():
    with pytest.raises(ValueError, match="must be on loopback"):
        listen.check_loopback("0.0.0.0:8470")


def test_an_address_in_use_is_one_clear_error():
    def bind_port(address: str) -> int:
        with socket.socket() as second:
            second.bind(listen.split(address))
            return int(second.getsockname()[1])

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(listen.CannotListenError, match=f"cannot listen on {address}"):
            listen.bind(bind_port, address)
    assert listen.bind(bind_port, "127.0.0.1:0").startswith("127.0.0.1:")


ANNOUNCE = "from runtime import listen; listen.announce(listen='a:1', metrics='b:2')"


def test_the_ready_line_is_one_json_object_and_a_closed_stdout_is_no_error():
    written = subprocess.run([sys.executable, "-c", ANNOUNCE], capture_output=True, check=True, timeout=60).stdout
    assert json.loads(written) == {"event": "ready", "listen": "a:1", "metrics": "b:2"}
    subprocess.run(["sh", "-c", f'exec {sys.executable} -c "{ANNOUNCE}" >&-'], check=True, timeout=60)
    broken = subprocess.run(["sh", "-c", f'{sys.executable} -c "{ANNOUNCE}" | true'], check=True, timeout=60)
    assert broken.returncode == 0
