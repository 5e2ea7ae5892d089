"""The wait of a main thread for a queue that signal handlers fill."""

import queue
import resource
import signal
import subprocess
import sys
import threading

import pytest

from runtime import process
from runtime.process import next_of


@pytest.mark.timeout(60)
def test_a_signal_that_interrupts_no_wait_is_handled(request: pytest.FixtureRequest) -> None:
    items: queue.SimpleQueue[str] = queue.SimpleQueue()
    before = signal.signal(signal.SIGUSR1, lambda number, frame: items.put("stop"))
    request.addfinalizer(lambda: signal.signal(signal.SIGUSR1, before))
    # Delivered to another thread, the signal does not end the wait of the main thread, which runs the handler.
    other = threading.Timer(0.1, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1))
    other.start()
    assert next_of(items) == "stop"
    other.join()


SERVER = """
import asyncio, logging
from runtime import process
class Server:
    address = metrics_address = "127.0.0.1:0"
    async def start(self): pass
    async def stop(self): print("drained", flush=True)
asyncio.run(process.serve(Server, logging.getLogger()))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_process_drains_and_ends(number: signal.Signals, request: pytest.FixtureRequest) -> None:
    """SIGHUP ended the process at once, with every request in flight."""
    before = signal.signal(number, signal.SIG_DFL)  # under nohup the child would ignore SIGHUP
    request.addfinalizer(lambda: signal.signal(number, before))
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert "listen" in child.stdout.readline()
        child.send_signal(number)
        assert child.stdout.read() == "drained\n"
    assert child.returncode == 0


HANGING = """
import asyncio, logging, os, sys
from runtime import logs, process
class Server:
    address = metrics_address = "127.0.0.1:0"
    async def start(self):
        reader, self.writer = os.pipe()
        self.look = asyncio.create_task(asyncio.to_thread(os.read, reader, 1))
    async def stop(self):
        self.look.cancel()
        print("drained", flush=True)
logs.configure("info")
process._END_SECONDS = 0.1
asyncio.run(process.serve(Server, logging.getLogger("test")))
"""


@pytest.mark.timeout(60)
def test_a_process_ends_although_a_thread_hangs() -> None:
    """asyncio and concurrent.futures waited for the thread for ever."""
    with subprocess.Popen([sys.executable, "-c", HANGING], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert b"listen" in child.stdout.readline()
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate()
    assert (child.returncode, out) == (0, b"drained\n")
    assert b"ended with threads that hang" in err


def test_a_process_under_nohup_outlives_its_terminal(request: pytest.FixtureRequest) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    request.addfinalizer(lambda: signal.signal(signal.SIGHUP, before))
    assert signal.SIGHUP in process.ending_signals()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert process.ending_signals() == [signal.SIGTERM, signal.SIGINT]


def test_a_service_may_open_as_many_files_as_the_system_allows(request: pytest.FixtureRequest) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, before))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    process._allow_files()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])


@pytest.mark.parametrize(("files", "most"), [(256, 128), (4096, 1000), (resource.RLIM_INFINITY, 1000)])
def test_connections_leave_half_of_the_files(monkeypatch: pytest.MonkeyPatch, files: int, most: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert process.connections(1000) == most


@pytest.mark.parametrize(("stated", "allowed", "files"), [(1 << 63, 10_240, 10_240), (4096, 1024, 256)])
def test_a_system_that_allows_fewer_files_than_it_states_stops_no_service(
    monkeypatch: pytest.MonkeyPatch, stated: int, allowed: int, files: int
) -> None:
    """macOS states that there is no limit, and refuses to set none."""
    limits = (256, stated)

    def set_limits(_: int, wanted: tuple[int, int]) -> None:
        nonlocal limits
        if wanted[0] > allowed:
            raise ValueError("current limit exceeds maximum limit")
        limits = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", set_limits)
    process._allow_files()
    assert limits == (files, stated)
