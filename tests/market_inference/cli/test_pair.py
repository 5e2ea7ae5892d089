"""Two services as child processes of this one: how they are wired and that none is left behind.

Two small modules stand in for the services; test_pair_real.py runs the real ones.
"""

import json
import os
import signal
import tempfile
import textwrap
from pathlib import Path

import pytest

from market_inference import Pair
from market_inference.cli import checkout, pair
from market_inference.cli.process import ServiceProcessError

SERVICE = """
    import json, os, signal, sys
    json.dump(dict(os.environ), open(os.path.join(os.environ["MARKET_INFERENCE_STATE_DIR"], "{name}.environment"), "w"))
    print(json.dumps(dict(event="ready", listen="127.0.0.1:{port}", metrics="127.0.0.1:{port}1")), flush=True)
    signal.pause()
"""


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A checkout whose two services are small stand-ins; returns its folder."""
    folder = tmp_path / "checkout"
    for constant, name, port in (("INFERENCE", "stub_inference", 1111), ("GATEWAY", "stub_gateway", 2222)):
        (folder / name).mkdir(parents=True)
        (folder / name / "__main__.py").write_text(textwrap.dedent(SERVICE.format(name=name, port=port)))
        monkeypatch.setattr(pair, constant, name)
    (folder / "pyproject.toml").touch()
    monkeypatch.setattr(checkout, "ROOT", folder)
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def environment(state: Path, name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((state / f"{name}.environment").read_text())
    return found


def test_the_gateway_is_told_where_the_inference_service_listens(state: Path) -> None:
    with Pair(state=state, listen="127.0.0.1:8470", device="cpu") as running:
        assert running.target == "127.0.0.1:2222"
        assert running.metrics == {"gateway": "127.0.0.1:22221", "inference": "127.0.0.1:11111"}
        inference, gateway = (environment(state, name) for name in ("stub_inference", "stub_gateway"))
    assert gateway["MARKET_GATEWAY_REPLICAS"] == "127.0.0.1:1111"
    assert gateway["MARKET_GATEWAY_LISTEN"] == "127.0.0.1:8470"
    socket = Path(inference["MARKET_INFERENCE_LISTEN"].removeprefix("unix:"))
    assert socket.name == "inference"
    assert not socket.parent.exists(), "the folder of the socket goes with the pair"
    assert inference["MARKET_INFERENCE_DEVICE"] == "cpu"
    assert inference["MARKET_INFERENCE_STATE_DIR"] == gateway["MARKET_INFERENCE_STATE_DIR"] == str(state)


def test_a_temporary_folder_with_a_long_path_has_no_socket(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with Pair(state=state):
        assert environment(state, "stub_inference")["MARKET_INFERENCE_LISTEN"] == "127.0.0.1:0"
    assert list(folder.iterdir()) == []


def test_leaving_the_with_block_leaves_no_process_even_by_an_error(state: Path) -> None:
    with pytest.raises(ZeroDivisionError), Pair(state=state) as running:
        pids = [process.pid for process in running.processes]
        assert all(map(alive, pids))
        raise ZeroDivisionError
    assert len(pids) == 2
    assert not any(map(alive, pids))
    running.close()


def test_a_process_that_dies_is_noticed_at_once_and_the_other_ends_with_it(state: Path) -> None:
    ended = "stub_inference process ended with status -9"
    with pytest.raises(ServiceProcessError, match=ended), Pair(state=state) as running:
        pids = [process.pid for process in running.processes]
        os.kill(pids[0], signal.SIGKILL)
        running.wait()
    assert not any(map(alive, pids))


def test_a_gateway_that_cannot_start_ends_the_inference_process_too(state: Path, stand_ins: Path) -> None:
    (stand_ins / "stub_gateway" / "__main__.py").write_text("import sys; sys.exit('the port is taken')")
    started, before = Pair(state=state), _children()
    with pytest.raises(ServiceProcessError, match="the port is taken"):
        started.start()
    assert started.processes == ()
    assert _children() <= before


def test_an_impatient_second_interrupt_still_leaves_no_process(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = Pair(state=state)
    running.start()
    pids = [process.pid for process in running.processes]
    monkeypatch.setattr(running.processes[1], "stop", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        running.close()
    assert not any(map(alive, pids))


def test_a_service_that_is_not_installed_is_named_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, state: Path
) -> None:
    monkeypatch.setattr(pair, "GATEWAY", "no_such_gateway")
    before = _children()
    with pytest.raises(checkout.NoCheckoutError, match="no_such_gateway is not part of the installed client"):
        Pair(state=state).start()
    assert _children() <= before


def _interrupt(grace: float) -> None:
    raise KeyboardInterrupt


def _children() -> set[str]:
    """The process ids of this process's children; fixtures of other tests may have started some."""
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())
