"""The fields of a JSON request beside the message: `timeout` and `priority`.

Owns their checks. Which of them a request may carry, and under which defaults, belongs to the caller of this module.
"""

from typing import Any

from market_inference.contract.errors import InvalidRequestError, Violation
from market_inference.contract.metadata import PRIORITIES


def timeout(given: Any, default: float) -> float:
    """Seconds for the request. Raises InvalidRequestError."""
    if given is None:
        return default
    if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
        raise InvalidRequestError([Violation("timeout", "must be a number of seconds above 0")])
    return float(given)


def priority(given: Any) -> str:
    """ "interactive" (the default) or "batch". Raises InvalidRequestError."""
    if given is None:
        return PRIORITIES[0]
    if given not in PRIORITIES:
        raise InvalidRequestError([Violation("priority", f"must be {' or '.join(PRIORITIES)}")])
    return str(given)
