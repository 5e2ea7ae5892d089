"""Turns of the explaining check, for calls that the fast check did not accept, and of other work that can wait.

Owns the share of the event loop's time for such calls, and the turns between clients. Explaining a mistake takes
milliseconds where a valid request is checked in microseconds, so the calls of other clients must not wait for
explanations: slow checks run in short slices, with breaks in proportion, and clients take turns.
"""

from asyncio import Future, TimerHandle, get_running_loop
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from market_inference.contract import deadline
from market_inference.contract.errors import InvalidRequestError, Violation
from runtime.round_robin import RoundRobin

SLICE_SECONDS: Final = 0.0005
"""Slow checks run without a break for at most this time and one check."""
SHARE: Final = 0.25
"""The share of the event loop's time for slow checks."""
MOST_EXPLAINED: Final = 16
"""Refused requests of one Stream message that get an explanation."""
Found = TypeVar("Found")


@dataclass(slots=True)
class Mistakes:
    """The refused requests of one Stream message. `suspected`: a request takes, or has taken, the explaining check."""

    count: int = 0
    suspected: bool = False

    def refuse_further(self) -> None:
        """Raises InvalidRequestError once MOST_EXPLAINED requests of the message are refused."""
        if self.count >= MOST_EXPLAINED:
            text = f"not checked: {self.count} other requests of the Stream message break a rule; correct those first"
            raise InvalidRequestError([Violation("", text, "too_many_mistakes")])


class SlowChecks:
    """A queue of checks per client. The first check after a pause runs at once. `share`: of the event loop's time."""

    def __init__(self, share: float = SHARE) -> None:
        self._share = share
        self._waiting: RoundRobin[Callable[[], None]] = RoundRobin()
        self._next_slice = 0.0
        self._timer: TimerHandle | None = None
        self._running = False

    def add(self, client: str, check: Callable[[], None]) -> None:
        """Run `check` in the client's turn, now or later. `check` raises nothing."""
        self._waiting.add(client, check)
        if self._timer is None and not self._running:
            self._run_or_wait()

    async def turn(self, client: str, check: Callable[[], Found]) -> Found:
        """Run `check` in the client's turn; its value. Raises the exceptions of `check`."""
        return await self.later(client, check, get_running_loop().create_future())

    def later(self, client: str, check: Callable[[], Found], outcome: Future[Found]) -> Future[Found]:
        """Run `check` in the client's turn, unless `outcome` is cancelled before; `outcome` gets the value."""

        def run() -> None:
            if outcome.done():
                return
            try:
                found = check()
            except Exception as error:  # noqa: BLE001 -- raised where the future is awaited
                outcome.set_exception(error)
            else:
                outcome.set_result(found)

        self.add(client, run)
        return outcome

    def finish(self) -> None:
        """Run all checks that wait."""
        while self._waiting:
            self._waiting.pop()()

    def _run_or_wait(self) -> None:
        wait = self._next_slice - deadline.now()
        if wait > 0:
            self._timer = get_running_loop().call_later(wait, self._run)
        else:
            self._run()

    def _run(self) -> None:
        self._timer, self._running = None, True
        began = now = deadline.now()
        try:
            while self._waiting and now - began < SLICE_SECONDS:
                self._waiting.pop()()
                now = deadline.now()
        finally:
            # After a bug in a check the others go on.
            self._running = False
            self._next_slice = now + (now - began) * (1 / self._share - 1)
            if self._waiting:
                self._timer = get_running_loop().call_later(self._next_slice - now, self._run)
