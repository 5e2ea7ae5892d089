"""How much a client may ask for: a rate with bursts, and a quota a day (UTC), both in cost units.

Owns the arithmetic and the counts of this process. Counts shared by all gateways are shared_budget.py's.

A rate is a token bucket that may go into debt: a request passes while anything is left, whatever it costs, and the debt
delays the next. So no request is too big for a rate, and the mean holds all the same. A quota is never exceeded.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.access.auth import Client
from market_inference.contract.errors import QuotaExceededError, RateLimitedError

DAY_SECONDS: Final = 86_400.0
# Beyond so many clients the ones longest unused are forgotten. Names come from credentials, not from callers.
_MOST_CLIENTS = 16_384


@dataclass(frozen=True, slots=True)
class Allowance:
    """Units a second (with `burst` of them at once) and units a day; 0 is without limit."""

    per_second: float
    burst: float
    per_day: float


@dataclass(frozen=True, slots=True)
class Remaining:
    """What is left: units of the burst, and of the day. Infinite without a limit."""

    burst: float
    day: float


@dataclass(slots=True)
class Account:
    """One client's state: the bucket's level when it was last used, and what the day has seen."""

    level: float
    at: float
    day: int
    used: float


class Budget(Protocol):
    """Where clients' accounts are kept."""

    async def spend(self, client: str, allowance: Allowance, units: float) -> Remaining:
        """Take units from a client's account. Raises RateLimitedError or QuotaExceededError, and then takes none."""
        ...


class Limits:
    """The allowances of clients: their own, else the gateway's."""

    def __init__(self, budget: Budget, *, per_second: float, burst_seconds: float, per_day: float) -> None:
        self._budget = budget
        self._per_second = per_second
        self._burst_seconds = burst_seconds
        self._per_day = per_day

    def allowance(self, client: Client) -> Allowance | None:
        """None for a client without any limit, which is never counted."""
        per_second = client.units_per_second or self._per_second
        per_day = client.units_per_day or self._per_day
        if not per_second and not per_day:
            return None
        return Allowance(per_second, per_second * self._burst_seconds, per_day)

    async def spend(self, client: str, allowance: Allowance, units: float) -> Remaining:
        return await self._budget.spend(client, allowance, units)


def refusal(client: str, allowance: Allowance, level: float, used: float, units: float, at: float) -> Exception:
    """The error for a request that the account does not cover, with the time after which it would."""
    if 0 < allowance.per_day < used + units:
        return QuotaExceededError(
            client,
            f"{allowance.per_day:g} units a day, {used:g} used, {units:g} asked for",
            retry_after=DAY_SECONDS - at % DAY_SECONDS,
        )
    return RateLimitedError(
        f"more than {allowance.per_second:g} units a second (this request costs {units:g})",
        retry_after=max(0.001, -level / allowance.per_second),
    )


def remaining(allowance: Allowance, level: float, used: float) -> Remaining:
    return Remaining(
        level if allowance.per_second else math.inf, allowance.per_day - used if allowance.per_day else math.inf
    )


class LocalBudget:
    """Accounts in this process. `clock` gives Unix time in seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._accounts: dict[str, Account] = {}

    async def spend(self, client: str, allowance: Allowance, units: float) -> Remaining:
        at = self._clock()
        day = int(at // DAY_SECONDS)
        account = self._accounts.get(client)
        if account is None:
            self._forget(at)
            account = self._accounts[client] = Account(allowance.burst, at, day, 0.0)
        account.level = min(allowance.burst, account.level + (at - account.at) * allowance.per_second)
        account.at = at
        if account.day != day:
            account.day, account.used = day, 0.0
        over = 0 < allowance.per_day < account.used + units
        if over or (allowance.per_second and account.level <= 0):
            raise refusal(client, allowance, account.level, account.used, units, at)
        account.level -= units
        account.used += units
        return remaining(allowance, account.level, account.used)

    def _forget(self, at: float) -> None:
        """Make room: the accounts longest unused go."""
        if len(self._accounts) >= _MOST_CLIENTS:
            oldest = sorted(self._accounts, key=lambda client: self._accounts[client].at)
            for client in oldest[: _MOST_CLIENTS // 4]:
                del self._accounts[client]
