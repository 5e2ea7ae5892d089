"""The policy of sending a failed call again.

Owns a pure function of the error, the tries so far, the time left and a random number. Every call of the service is
pure, so that sending a call twice is safe.
"""

from dataclasses import dataclass

from market_inference.client.inputs import arguments
from market_inference.errors import MarketInferenceError, OverloadedError, UnavailableError


@dataclass(frozen=True, slots=True)
class Retries:
    """Jittered exponential backoff, within the call's timeout.

    A call is sent again when the service was unavailable, and when the service refused it with a time to come back.
    `attempts`: further tries, 0 for none. `first_pause`: seconds before the first further try; each next pause doubles,
    up to `longest_pause`. Raises ArgumentError.
    """

    attempts: int = 2
    first_pause: float = 0.1
    longest_pause: float = 2.0

    def __post_init__(self) -> None:
        arguments.whole(self.attempts, "retries.attempts")
        for name in ("first_pause", "longest_pause"):
            arguments.seconds(getattr(self, name), f"retries.{name}")

    def pause(self, error: MarketInferenceError, tried: int, left: float, draw: float) -> float | None:
        """Seconds to wait before the next try, or None to give up.

        `tried`: tries that have failed; `left`: seconds until the deadline; `draw`: uniform in [0, 1).
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
