"""Accounts in Redis, shared by all gateways and workers.

Owns the script that reads, decides and writes in one step, and the policy while Redis is away. Each process then counts
on for itself, from the last state that Redis told: no client is refused because Redis is away, and a client gets at
most the rest of its allowance times the number of processes. What a process has counted for itself is a debt of the
shared account:

- the next request to Redis adds the debt to the used units, once, and only on the day of the debt. The account notes
  the name and the units of the debt, so that the process may send a debt again after a timeout or a cancelled call;
- the level of the rate becomes the smaller of the level in Redis and the level in the process. A debt is not taken
  from the level: the bucket refills up to its burst only, and a long outage would refuse clients below their rate.

While Redis is away, a PING every second asks whether Redis is back. Redis executes each request that it has received,
also after the timeout: requests that charge units would pile up.
"""

import logging
import math
import uuid
from typing import Any, NamedTuple

import redis.asyncio as redis
from redis import __version__ as redis_version
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as UnreachableError
from redis.exceptions import InvalidResponse, RedisError
from redis.exceptions import TimeoutError as TimedOutError

from gateway.access.budget import MOST_CLIENTS, Allowance, LocalBudget, Remaining, refusal, remaining
from market_inference.contract import deadline
from runtime.logs import fields

try:
    # The library has no public bound on an answer. A parser that lacks what Parser overrides would read without one.
    from redis._parsers import _AsyncRESP2Parser

    _OVERRIDDEN = [getattr(_AsyncRESP2Parser, name) for name in ("read_response", "_readline", "_read")]
except (ImportError, AttributeError) as error:
    raise ImportError(
        f"redis {redis_version} reads answers in another way than gateway/access/shared_budget.py bounds ({error}): "
        "install a version that constraints/runtime.txt names"
    ) from error

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 0.25
CONNECTIONS = 8
MOST_ANSWER_BYTES = 4096
"""The script's answer takes some 100 bytes, the text of an error a few hundred."""
# What the client library, or the reading of the answer, raises for bytes that are no answer of Redis.
_GARBAGE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
RETRY_SECONDS = 1.0
# The clock is Redis' own, so that gateways with different clocks agree.
SCRIPT = """
local clock = redis.call('TIME')
local at = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
local day = math.floor(at / 86400)
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local quota, units = tonumber(ARGV[3]), tonumber(ARGV[4])
local kept = redis.call('HMGET', KEYS[1], 'level', 'at', 'day', 'used')
local level, used = burst, 0
-- A clock that is set back takes no units away and gives no second quota; the account has the new time at once.
local ahead = kept[1] and tonumber(kept[2]) > at
if kept[1] then level = math.min(burst, tonumber(kept[1]) + math.max(0, at - tonumber(kept[2])) * rate) end
local same_day = kept[3] and tonumber(kept[3]) >= day
if same_day then used = tonumber(kept[4]) end
local name, owed = nil, 0
if ARGV[5] then -- a debt: the level in the process, name, day and units
  level, name = math.min(level, tonumber(ARGV[5])), 'debt:' .. ARGV[6]
  if tonumber(ARGV[7]) == day then
    owed = math.max(0, tonumber(ARGV[8]) - tonumber(redis.call('HGET', KEYS[1], name) or 0))
  end
  used = used + owed
end
local refused = (quota > 0 and used + units > quota) or (rate > 0 and level <= 0)
if not refused then level, used = level - units, used + units end
if not refused or name or ahead then
  -- With the units of another day go the notes of that day's debts.
  if not same_day then redis.call('DEL', KEYS[1]) end
  -- Requests may arrive out of order: a debt of before never replaces a debt that has grown.
  if owed > 0 then redis.call('HSET', KEYS[1], name, ARGV[8]) end
  redis.call('HSET', KEYS[1], 'level', string.format('%.17g', level), 'at', string.format('%.17g', at),
             'day', day, 'used', string.format('%.17g', used))
  redis.call('EXPIRE', KEYS[1], 172800)
end
return {refused and 1 or 0, string.format('%.17g', level), string.format('%.17g', used), string.format('%.17g', at)}
"""

# A request to give units back: nothing is refused, an unknown account stays unknown, no account exceeds its allowance.
GIVE_BACK = """
local clock = redis.call('TIME')
local at = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local units, ago = tonumber(ARGV[3]), tonumber(ARGV[4])
local kept = redis.call('HMGET', KEYS[1], 'level', 'at', 'day', 'used')
if not kept[1] then return 0 end
local level = tonumber(kept[1]) + math.max(0, at - tonumber(kept[2])) * rate
local used = tonumber(kept[4])
local day = math.min(tonumber(kept[3]), math.floor(at / 86400))
if day == math.floor((at - ago) / 86400) then used = math.max(0, used - units) end
redis.call('HSET', KEYS[1], 'level', string.format('%.17g', math.min(burst, level + units)),
           'at', string.format('%.17g', at), 'used', string.format('%.17g', used))
return 1
"""


class Debt(NamedTuple):
    """Units that a process has counted for itself on a day (days since 1970). The name is unique."""

    name: str
    day: int
    units: float


class Parser(_AsyncRESP2Parser):
    """Reads at most MOST_ANSWER_BYTES of an answer, then raises InvalidResponse: the client closes the connection.

    The library's parser stays in one turn of the event loop while an answer without an end keeps coming.
    """

    async def read_response(self, disable_decoding: bool = False) -> Any:
        self._left = MOST_ANSWER_BYTES
        return await super().read_response(disable_decoding)

    async def _readline(self) -> bytes:
        line: bytes = await super()._readline()
        self._take(len(line))
        return line

    async def _read(self, length: int) -> bytes:
        self._take(length)
        content: bytes = await super()._read(length)
        return content

    def _take(self, length: int) -> None:
        self._left -= length + len(b"\r\n")
        if length < 0 or self._left < 0:
            raise InvalidResponse(f"an answer above {MOST_ANSWER_BYTES} bytes")


class Pool(redis.BlockingConnectionPool):
    """A timeout while connecting is an UnreachableError: Redis has not received the request."""

    def __init__(self, **options: Any) -> None:
        # The parser reads version 2 of the protocol, whatever the URL asks for.
        super().__init__(**{**options, "protocol": 2, "parser_class": Parser})

    async def ensure_connection(self, connection: redis.connection.AbstractConnection) -> None:
        try:
            await super().ensure_connection(connection)
        except TimedOutError as error:
            raise UnreachableError(str(error)) from error


class SharedBudget:
    """Accounts under `market-inference:budget:<client>` of the Redis at `url`; in this process while Redis is away.

    Redis is away when an answer takes longer than `timeout` seconds, and when the answer is none of the script's.
    """

    def __init__(self, url: str, *, timeout: float = TIMEOUT_SECONDS) -> None:
        # A burst of requests waits for a few connections, and does not open a connection per request.
        pool = Pool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = redis.Redis.from_pool(pool)
        self._spend = self._redis.register_script(SCRIPT)
        self._give_back = self._redis.register_script(GIVE_BACK)
        self._timeout = timeout
        self._local = LocalBudget()
        self._debts: dict[str, Debt] = {}
        self._away_until = 0.0
        self.away = False

    async def spend(self, client: str, allowance: Allowance, units: float) -> Remaining:
        if self.away and not await self._answers():
            return self._spend_here(client, allowance, units)
        sent, debt = deadline.now(), self._debts.get(client)
        arguments: list[str | float] = [allowance.per_second, allowance.burst, allowance.per_day, units]
        if debt:
            # Waiting for a connection, connecting and the answer take a timeout each: the bucket refills until then.
            arguments += [self._local.level(client, allowance, sent + 3 * self._timeout), *debt]
        try:
            state = _state(await self._spend(keys=[f"market-inference:budget:{client}"], args=arguments))
        except TimedOutError as error:
            self._note(away=True, reason=type(error).__name__)
            # Redis has received the request and charges the units, if only later: a debt would charge them twice.
            return self._local.spend(client, allowance, units, charged=True)
        except (RedisError, OSError, *_GARBAGE) as error:
            self._note(away=True, reason=type(error).__name__)
            return self._spend_here(client, allowance, units)
        self._note(away=False)
        refused, level, used, at = state
        known = self._debts.get(client, debt) == debt
        if known:
            self._debts.pop(client, None)
            self._local.follow(client, level, used, sent)
        if refused:
            raise refusal(client, allowance, level, used, units, at)
        # The answer lacks the units that this process has counted since the request.
        return remaining(allowance, level, used) if known else self._local.spend(client, allowance, units, charged=True)

    async def give_back(self, client: str, allowance: Allowance, units: float, ago: float) -> None:
        """Units that this process has counted for itself come off its debt. Units lost with an answer stay lost."""
        self._local.give_back(client, allowance, units, ago)
        debt = self._debts.get(client)
        if debt is not None:
            if debt.day == self._local.day(ago):
                self._debts[client] = debt._replace(units=max(0.0, debt.units - units))
            return
        if self.away:
            return
        arguments = [allowance.per_second, allowance.burst, units, ago]
        try:
            await self._give_back(keys=[f"market-inference:budget:{client}"], args=arguments)
        except (RedisError, OSError, *_GARBAGE) as error:
            self._note(away=True, reason=type(error).__name__)

    async def _answers(self) -> bool:
        """Whether a Redis that was away answers again; one caller asks, once in RETRY_SECONDS."""
        if self._away_until > deadline.now():
            return False
        self._away_until = deadline.after(RETRY_SECONDS)
        try:
            await self._redis.ping()
        except (RedisError, OSError, *_GARBAGE) as error:
            self._note(away=True, reason=type(error).__name__)
            return False
        return True

    def _spend_here(self, client: str, allowance: Allowance, units: float) -> Remaining:
        """Count units in this process, as a debt. Above MOST_CLIENTS debts the oldest debt is given up."""
        left = self._local.spend(client, allowance, units)
        day, debt = self._local.day(), self._debts.get(client)
        if debt is None or debt.day != day:
            debt = Debt(uuid.uuid4().hex, day, 0.0)
        self._debts[client] = debt._replace(units=debt.units + units)
        if len(self._debts) > MOST_CLIENTS:
            del self._debts[next(iter(self._debts))]
        return left

    def _note(self, *, away: bool, reason: str = "") -> None:
        if away:
            self._away_until = deadline.after(RETRY_SECONDS)
        if away != self.away:
            self.away = away
            log.warning("shared budget away" if away else "shared budget back", extra=fields(reason=reason))

    async def close(self) -> None:
        await self._redis.aclose()


def _state(answer: list[int | bytes]) -> tuple[bool, float, float, float]:
    """Whether the script refused, level, used units and time. Raises one of _GARBAGE: NaN would allow every request."""
    refused, level, used, at = map(float, answer)
    if not all(map(math.isfinite, (level, used, at))):
        raise ValueError("no numbers")
    return bool(refused), level, used, at
