"""The wait of a main thread for a queue that signal handlers fill."""

import queue
import resource
import signal
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


def test_a_service_may_open_as_many_files_as_the_system_allows(request: pytest.FixtureRequest) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, before))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    process._allow_files()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])


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
