"""Accounts in Redis, shared by all gateways and workers.

Owns the script that reads, decides and writes in one step, and the policy while Redis is away: each gateway counts on
in its own process, from the newest state that Redis told, so that no client is locked out, and a client gets at most
the rest of its allowance times the number of gateways. What was counted meanwhile is a debt, which the next question to
Redis adds to the account. A client could otherwise make Redis late by a flood, and begin a new account with each flood.
Redis is asked again after a second.
"""

import logging

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as LateError

from gateway.access.budget import MOST_CLIENTS, Allowance, LocalBudget, Remaining, refusal, remaining
from market_inference.contract import deadline
from runtime.logs import fields

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 0.25
CONNECTIONS = 8
RETRY_SECONDS = 1.0
# The clock is Redis' own, so that gateways with different clocks agree.
SCRIPT = """
local clock = redis.call('TIME')
local at = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
local day = math.floor(at / 86400)
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local quota, units, debt = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local kept = redis.call('HMGET', KEYS[1], 'level', 'at', 'day', 'used')
local level, used = burst, 0
-- A clock that is set back takes no units away.
if kept[1] then level = math.min(burst, tonumber(kept[1]) + math.max(0, at - tonumber(kept[2])) * rate) end
if kept[3] and tonumber(kept[3]) == day then used = tonumber(kept[4]) end
level, used = level - debt, used + debt
local refused = (quota > 0 and used + units > quota) or (rate > 0 and level <= 0)
if not refused then level, used = level - units, used + units end
if not refused or debt > 0 then
  redis.call('HSET', KEYS[1], 'level', string.format('%.17g', level), 'at', string.format('%.17g', at),
             'day', day, 'used', string.format('%.17g', used))
  redis.call('EXPIRE', KEYS[1], 172800)
end
return {refused and 1 or 0, string.format('%.17g', level), string.format('%.17g', used), string.format('%.17g', at)}
"""


class SharedBudget:
    """Accounts under `<prefix>:<client>` of the Redis at `url`; in this process while Redis is away.

    Redis is away when an answer takes longer than `timeout` seconds.
    """

    def __init__(self, url: str, *, prefix: str = "market-inference:budget", timeout: float = TIMEOUT_SECONDS) -> None:
        # A burst of requests waits for a few connections, and does not open a connection per request.
        pool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = redis.Redis.from_pool(pool)
        self._spend = self._redis.register_script(SCRIPT)
        self._prefix = prefix
        self._local = LocalBudget()
        # Units by client that this process has counted while Redis was away.
        self._debts: dict[str, float] = {}
        self._away_until = 0.0
        self.away = False

    async def spend(self, client: str, allowance: Allowance, units: float) -> Remaining:
        if self._away_until > deadline.now():
            return self._spend_here(client, allowance, units)
        debt = self._debts.pop(client, 0.0)
        arguments = [allowance.per_second, allowance.burst, allowance.per_day, units, debt]
        try:
            answer = await self._spend(keys=[f"{self._prefix}:{client}"], args=arguments)
        except (RedisError, OSError) as error:
            self._note(away=True, reason=type(error).__name__)
            self._away_until = deadline.after(RETRY_SECONDS)
            # Redis reads a question that it has got, also after the time: a debt would count the units twice.
            if isinstance(error, LateError):
                return self._local.spend(client, allowance, units)
            self._owe(client, debt)
            return self._spend_here(client, allowance, units)
        except BaseException:
            self._owe(client, debt)
            raise
        self._note(away=False)
        level, used, at = (float(value) for value in answer[1:])
        # An answer from before a debt knows nothing of the debt.
        if client not in self._debts:
            self._local.follow(client, level, used)
        if answer[0]:
            raise refusal(client, allowance, level, used, units, at)
        return remaining(allowance, level, used)

    def _spend_here(self, client: str, allowance: Allowance, units: float) -> Remaining:
        left = self._local.spend(client, allowance, units)
        self._owe(client, units)
        return left

    def _owe(self, client: str, units: float) -> None:
        """Note a debt. Above the number of clients that have accounts here, the oldest debt is given up."""
        if units:
            self._debts[client] = self._debts.get(client, 0.0) + units
            while len(self._debts) > MOST_CLIENTS:
                del self._debts[next(iter(self._debts))]

    def _note(self, *, away: bool, reason: str = "") -> None:
        if away != self.away:
            self.away = away
            log.warning("shared budget away" if away else "shared budget back", extra=fields(reason=reason))

    async def close(self) -> None:
        await self._redis.aclose()
