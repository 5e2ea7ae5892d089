"""When a failed call is sent again.

Owns the policy, a pure function of the error, the attempts so far, the time left and a random number. Every call of the
service is pure, so sending one twice is safe.
"""

from dataclasses import dataclass

from market_inference.errors import MarketInferenceError, OverloadedError, UnavailableError


@dataclass(frozen=True, slots=True)
class Retries:
    """Jittered exponential backoff, within the call's timeout.

    Sent again are calls that found the service unavailable, and those refused with the advice when to come back.
    `attempts`: how often again, 0 for never. `first_pause`: seconds before the first; each further one doubles, up to
    `longest_pause`.
    """

    attempts: int = 2
    first_pause: float = 0.1
    longest_pause: float = 2.0

    def pause(self, error: MarketInferenceError, tried: int, left: float, draw: float) -> float | None:
        """Seconds to wait before the next attempt, or None to give up.

        `tried`: attempts that have failed; `left`: seconds until the deadline; `draw`: uniform in [0, 1).
        """
        if tried > self.attempts:
            return None
        if isinstance(error, OverloadedError) and error.retry_after is not None:
            pause = error.retry_after * (1 + 0.25 * draw)
        elif isinstance(error, UnavailableError):
            backoff = min(self.longest_pause, self.first_pause * 2.0 ** (tried - 1))
            pause = max(error.retry_after or 0.0, backoff * (0.5 + 0.5 * draw))
        else:
            return None
        return pause if pause < left else None
