"""Budgets of clients: a rate with bursts, and a quota per day (UTC), both in units (contract/units.py).

Owns the arithmetic and the accounts of this process. Accounts shared by all gateways are shared_budget.py's.

A rate is a token bucket that may go into debt: a request passes while the bucket's level is above zero, and the debt
delays the next request. So no request is too big for a rate, and the mean rate holds. A quota is never exceeded.
"""

import math
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from gateway.access.auth import Client
from market_inference.contract.errors import QuotaExceededError, RateLimitedError
from runtime.tasks import Tasks

DAY_SECONDS: Final = 86_400.0
# Above this number of clients, the accounts longest unused are dropped. Names of clients come from credentials.
MOST_CLIENTS: Final = 16_384


@dataclass(frozen=True, slots=True)
class Allowance:
    """Units per second (`burst` units at once) and units per day; 0 is no limit."""

    per_second: float
    burst: float
    per_day: float


@dataclass(frozen=True, slots=True)
class Remaining:
    """Units that remain of the burst and of the day; infinite without a limit."""

    burst: float
    day: float


Spent: TypeAlias = Remaining | Coroutine[Any, Any, Remaining]
"""The remaining units: known at once from an account in this process, awaited from a shared account."""


@dataclass(slots=True)
class Account:
    """One client's state: the bucket's level at the last use, and the units used on that day."""

    level: float
    at: float
    day: int
    used: float


class Budget(Protocol):
    """Keeps the accounts of clients."""

    def spend(self, client: str, allowance: Allowance, units: float) -> Spent:
        """Take units from a client's account. Raises RateLimitedError or QuotaExceededError, and then takes none."""
        ...

    def give_back(
        self, client: str, allowance: Allowance, units: float, ago: float
    ) -> Coroutine[Any, Any, None] | None:
        """Put units back that were taken at most `ago` seconds ago; of another day, into the bucket alone.

        A shared account gives a coroutine, which raises nothing.
        """
        ...


class Limits:
    """The allowances of clients: a client's own, else the gateway's."""

    def __init__(self, budget: Budget, *, per_second: float, burst_seconds: float, per_day: float) -> None:
        self._budget = budget
        self._per_second = per_second
        self._burst_seconds = burst_seconds
        self._per_day = per_day
        self._giving_back = Tasks()

    def allowance(self, client: Client) -> Allowance | None:
        """None for a client without a limit: the client has no account."""
        per_second = client.units_per_second or self._per_second
        per_day = client.units_per_day or self._per_day
        if not per_second and not per_day:
            return None
        return Allowance(per_second, per_second * self._burst_seconds, per_day)

    def spend(self, client: str, allowance: Allowance, units: float) -> Spent:
        return self._budget.spend(client, allowance, units)

    def give_back(self, client: str, allowance: Allowance, units: float, ago: float) -> None:
        """Put the units of a call back that the service failed. A shared account gets the units a moment later."""
        work = self._budget.give_back(client, allowance, units, ago)
        if work is not None:
            self._giving_back.spawn(work)


def refusal(client: str, allowance: Allowance, level: float, used: float, units: float, at: float) -> Exception:
    """The error for a request that the account does not cover, with the seconds until it does."""
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
    """Accounts in this process. `clock` gives Unix time in seconds, for the days of quotas."""

    def __init__(self, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._accounts: dict[str, Account] = {}

    def spend(self, client: str, allowance: Allowance, units: float, *, charged: bool = False) -> Remaining:
        """`charged`: a shared account has taken the units from its level; here they count as used only."""
        unix, at = self._clock(), self._monotonic()
        day = int(unix // DAY_SECONDS)
        account = self._accounts.get(client)
        if account is None:
            self._forget(at)
            account = self._accounts[client] = Account(allowance.burst, at, day, 0.0)
        account.level = self.level(client, allowance, at)
        account.at = at
        if account.day < day:  # a clock that is set back gives no second quota
            account.used = 0.0
        account.day = day
        over = 0 < allowance.per_day < account.used + units
        if over or (allowance.per_second and account.level <= 0):
            raise refusal(client, allowance, account.level, account.used, units, unix)
        account.level -= 0.0 if charged else units
        account.used += units
        return remaining(allowance, account.level, account.used)

    def give_back(self, client: str, allowance: Allowance, units: float, ago: float) -> None:
        account, at = self._accounts.get(client), self._monotonic()
        if account is None:
            return
        account.level = min(allowance.burst, self.level(client, allowance, at) + units)
        account.at = at
        if min(account.day, self.day()) == self.day(ago):
            account.used = max(0.0, account.used - units)

    def day(self, ago: float = 0.0) -> int:
        """The day, in days since 1970, `ago` seconds ago."""
        return int((self._clock() - ago) // DAY_SECONDS)

    def level(self, client: str, allowance: Allowance, at: float) -> float:
        """The bucket's level at an instant `at` of the monotonic clock."""
        account = self._accounts.get(client)
        if account is None:
            return allowance.burst
        return min(allowance.burst, account.level + (at - account.at) * allowance.per_second)

    def follow(self, client: str, level: float, used: float, at: float) -> None:
        """Take over the state of a shared account, from which this process counts on while that account is away.

        `at`: when the shared account was asked. A later instant would take the refill of the time between.
        """
        day = self.day()
        account = self._accounts.get(client)
        if account is None:
            self._forget(at)
        elif account.day >= day:  # answers may come out of order
            used = max(used, account.used)
        self._accounts[client] = Account(level, at, day, used)

    def _forget(self, at: float) -> None:
        """Drop the accounts longest unused when there are too many."""
        if len(self._accounts) >= MOST_CLIENTS:
            oldest = sorted(self._accounts, key=lambda client: self._accounts[client].at)
            for client in oldest[: MOST_CLIENTS // 4]:
                del self._accounts[client]
