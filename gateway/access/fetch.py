"""Fetching a small document from a web server, bounded in time and in bytes as a whole."""

import urllib.error
import urllib.request

from market_inference.contract import bounded


class FetchError(Exception):
    """The document cannot be fetched within the bounds."""


def fetch(url: str, *, seconds: float, most_bytes: int) -> bytes:
    """The document at an http or https URL. Blocks for at most `seconds` beside the DNS query. Raises FetchError."""
    request = urllib.request.Request(url)  # noqa: S310 -- the configuration takes http and https alone
    try:
        with bounded.opened(request, seconds=seconds, redirects=bounded.Redirects()) as answer:
            if isinstance(answer, urllib.error.HTTPError):
                raise answer
            content = bounded.content(answer, most_bytes)
    except bounded.ExpiredError as error:
        raise FetchError(str(error)) from error
    except Exception as error:  # whatever a server may send
        raise FetchError(f"{type(error).__name__}: {error}") from error
    if len(content) > most_bytes:
        raise FetchError(f"too large (max {most_bytes} bytes)")
    return content
