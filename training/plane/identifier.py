"""ULIDs: 26 characters that sort by the time of their making.

Source: https://github.com/ulid/spec, with Crockford's base 32.
"""

import secrets
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH = 26
PATTERN = "[0-9A-HJKMNP-TV-Z]{26}"


def new() -> str:
    """48 bits of milliseconds since the Unix epoch, then 80 random bits."""
    number = int(time.time() * 1000) << 80 | secrets.randbits(80)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range((_LENGTH - 1) * 5, -1, -5))
