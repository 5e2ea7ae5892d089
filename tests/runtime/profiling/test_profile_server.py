"""Profiles over a real socket: access, refusals, and no processes or files left behind."""

import asyncio
import os
import subprocess
import sys
import threading

import grpc
import pytest
from grpc_status import rpc_status
from pydantic import ValidationError

from gateway.config import Config as GatewayConfig
from inference.config import Config as InferenceConfig
from market_inference.contract.errors import reason_of
from market_inference.contract.generated import profile_pb2, profile_pb2_grpc
from runtime.extra import ExtraMissingError
from runtime.profiling import sampler
from runtime.profiling.sampler import Sampler
from runtime.profiling.server import ProfileServer
from tests.eventually import eventually_async

FOLDED, DEVICE = profile_pb2.PROFILE_KIND_FOLDED, profile_pb2.PROFILE_KIND_DEVICE
Ask = profile_pb2.TakeProfileRequest
# A process that no other process may inspect, not even a child: not dumpable, and without the capability.
REFUSED = """
import asyncio, ctypes, os, sys
libc = ctypes.CDLL(None)
PR_SET_DUMPABLE, PR_CAPBSET_DROP, CAP_SYS_PTRACE = 4, 24, 19
if sys.argv[1:] == []:
    libc.prctl(PR_CAPBSET_DROP, CAP_SYS_PTRACE, 0, 0, 0)
    os.execv(sys.executable, [sys.executable, __file__, "again"])
from market_inference.contract.errors import ProfileRefusedError
from runtime.profiling.sampler import Sampler
libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
try:
    asyncio.run(Sampler("SETTING").sample(1, "raw"))
except ProfileRefusedError as error:
    print(error.reason, error)
"""


class Gated:
    """Takes a profile of a device when the test says so."""

    def __init__(self) -> None:
        self.entered, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self, request: Ask) -> bytes:
        self.entered.set()
        await self.go.wait()
        return b"taken"


@pytest.fixture
async def gated():
    return Gated()


@pytest.fixture
async def stub(gated):
    server = ProfileServer("127.0.0.1:0", "SETTING", {DEVICE: gated})
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield profile_pb2_grpc.ProfileServiceStub(channel)
    await server.stop()


@pytest.fixture
def started(monkeypatch):
    """The programs that samplers start."""
    found = []
    start = Sampler._start

    def note(self, *arguments):
        found.append(start(self, *arguments))
        return found[-1]

    monkeypatch.setattr(Sampler, "_start", note)
    return found


@pytest.fixture
def busy():
    """A thread that a sampler finds at work."""
    done = threading.Event()

    def a_function_to_be_found(secret: str) -> None:
        while not done.is_set():
            sum(len(secret) for _ in range(1000))

    thread = threading.Thread(target=a_function_to_be_found, args=("a-secret-argument",), name="a-busy-thread")
    thread.start()
    yield
    done.set()
    thread.join(60)


async def test_compressed_requests_are_refused(stub):
    with pytest.raises(grpc.aio.AioRpcError, match="Compression algorithm 'gzip' is disabled"):
        await stub.TakeProfile(Ask(seconds=1, kind=FOLDED), compression=grpc.Compression.Gzip)


async def test_a_profile_names_threads_and_functions_and_no_values(stub, busy):
    found: list[str] = []
    while not found:  # in a second, a busy machine may give the sampler no look
        taken = await stub.TakeProfile(Ask(seconds=1, kind=FOLDED), timeout=60)
        stacks = taken.profile.decode().splitlines()
        found = [stack for stack in stacks if "a_function_to_be_found" in stack]
    assert sum(int(stack.rpartition(" ")[2]) for stack in found) > 0
    assert all("a-busy-thread" in stack for stack in found)
    assert b"a-secret-argument" not in taken.profile
    assert taken.process_id == os.getpid()


async def test_one_profile_at_a_time(stub, gated):
    first = stub.TakeProfile(Ask(seconds=1, kind=DEVICE))
    await gated.entered.wait()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.TakeProfile(Ask(seconds=1))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason_of(rpc_status.from_call(caught.value)) == "OVERLOADED"
    gated.go.set()
    assert (await first).profile == b"taken"
    assert (await stub.TakeProfile(Ask(seconds=1, kind=DEVICE))).profile == b"taken"


@pytest.mark.parametrize(
    ("request_", "words"), [(Ask(), "1 to 60"), (Ask(seconds=61), "1 to 60"), (Ask(seconds=1, kind=9), "kind")]
)
async def test_what_cannot_be_is_a_typed_error(stub, request_, words):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.TakeProfile(request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in caught.value.details()


async def test_a_caller_who_leaves_ends_the_sampling(stub, started, busy):
    call = stub.TakeProfile(Ask(seconds=60))
    await eventually_async(lambda: started)
    assert started[0].poll() is None
    call.cancel()
    await eventually_async(lambda: started[0].returncode is not None)
    assert (await stub.TakeProfile(Ask(seconds=1, kind=FOLDED), timeout=60)).process_id == os.getpid()


def test_where_the_system_refuses_the_error_says_what_to_set(tmp_path):
    script = tmp_path / "refused.py"
    script.write_text(REFUSED)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=250, check=True)
    assert done.stdout.startswith("PROFILE_REFUSED")
    assert "SYS_PTRACE in securityContext.capabilities.add" in done.stdout


async def test_a_bug_is_in_the_log_and_not_in_the_answer_and_the_next_profile_works(stub, gated, caplog):
    async def fail():
        raise ValueError("an internal matter")

    gated.go.wait = fail
    for _ in range(2):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.TakeProfile(Ask(seconds=1, kind=DEVICE))
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "internal matter" not in caught.value.details()
    assert "an internal matter" in caplog.text


async def test_a_failure_of_the_sampler_is_in_the_log_and_not_in_the_answer(stub, monkeypatch, caplog):
    monkeypatch.setattr(sampler, "SAMPLES_PER_SECOND", "as often as it likes")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.TakeProfile(Ask(seconds=1))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "as often" not in caught.value.details()
    assert "as often" in next(record for record in caplog.records if record.message == "profile failed").fields["said"]


def test_without_the_sampler_the_service_does_not_start(monkeypatch):
    monkeypatch.setattr(sampler.shutil, "which", lambda *arguments, **more: None)
    with pytest.raises(ExtraMissingError, match=r"SETTING needs .* pip install .* -e '\.\[profile\]'"):
        Sampler("SETTING")


@pytest.mark.parametrize("config", [GatewayConfig, InferenceConfig])
def test_off_by_default_and_never_open_to_other_machines(config):
    assert config().profile_listen == ""
    assert config(profile_listen="127.0.0.1:8480").profile_listen == "127.0.0.1:8480"
    for address in ("0.0.0.0:8480", "10.0.0.1:8480", "[::]:8480", "8480"):
        with pytest.raises(ValidationError, match=r"loopback|host:port"):
            config(profile_listen=address)
