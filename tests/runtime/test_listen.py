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


def test_a_unix_socket_is_an_address_of_this_machine():
    assert listen.check_any("unix:/run/inference") == "unix:/run/inference"
    assert listen.check_any("127.0.0.1:0") == "127.0.0.1:0"
    assert listen.is_loopback("unix:/run/inference")
    assert listen.exchange_path("unix:/run/inference") == "/run/inference.exchange"
    assert listen.exchange_path("127.0.0.1:8471") == ""
    for address in ("unix:run/inference", "unix:", f"unix:/{'x' * listen.MOST_PATH_BYTES}"):
        with pytest.raises(ValueError, match="an absolute path of at most 98 bytes"):
            listen.check_any(address)
    with pytest.raises(ValueError, match="must be host:port"):
        listen.check("unix:/run/inference")


def test_a_unix_socket_is_private_and_is_not_taken_from_a_process_that_listens(tmp_path_factory):
    path = tmp_path_factory.mktemp("s") / "r"

    def bind_socket(address: str) -> int:
        server.bind(address.removeprefix("unix:"))
        return 1

    with socket.socket(socket.AF_UNIX) as server:
        assert listen.bind(bind_socket, f"unix:{path}") == f"unix:{path}"
        assert path.stat().st_mode & 0o777 == 0o600
        server.listen()
        with pytest.raises(listen.CannotListenError, match="in use by another process"):
            listen.bind(bind_socket, f"unix:{path}")


def test_a_bound_unix_socket_is_private_before_it_listens_and_replaces_a_dead_ones_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("s") / "r"
    for _ in range(2):
        with listen.bind_unix(str(path)) as server, socket.socket(socket.AF_UNIX) as client:
            assert path.stat().st_mode & 0o777 == 0o600
            with pytest.raises(ConnectionRefusedError):
                client.connect(str(path))
            server.listen()
            client.connect(str(path))


def test_a_file_that_is_no_socket_is_not_replaced(tmp_path):
    (tmp_path / "r").write_text("kept")
    with pytest.raises(OSError, match="in use"):
        listen.bind_unix(str(tmp_path / "r"))
    assert (tmp_path / "r").read_text() == "kept"


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
    written = subprocess.run([sys.executable, "-c", ANNOUNCE], capture_output=True, check=True, timeout=250).stdout
    assert json.loads(written) == {"event": "ready", "listen": "a:1", "metrics": "b:2"}
    subprocess.run(["sh", "-c", f'exec {sys.executable} -c "{ANNOUNCE}" >&-'], check=True, timeout=250)
    broken = subprocess.run(["sh", "-c", f'{sys.executable} -c "{ANNOUNCE}" | true'], check=True, timeout=250)
    assert broken.returncode == 0
