"""A client of an S3 server, bounded in time and memory for any answer of the server.

Owns the limits of boto3's client: seconds for a connection and for a single read, and bytes of an answer in memory.
Bodies of objects are streams; the readers bound these. A request whose time is over is sent again for a caller that
moves large files alone: others have waited long enough.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

MOST_BYTES: Final = 8 << 20
"""A longer answer fails. A page of a listing has 1,000 names of at most 1,024 bytes; botocore has no limit."""
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 30.0


def client(
    endpoint: str | None, region: str, *, read_seconds: float = _READ_SECONDS, repeats_silent: bool = False
) -> Any:
    """A client for signatures of version 4, with the credentials of boto3. Raises ImportError without boto3.

    `repeats_silent`: a request whose time is over is sent again, as after a lost connection.
    """
    import boto3
    from botocore.config import Config

    # The default session keeps the credentials of its first client.
    made = boto3.Session().client(
        "s3",
        endpoint_url=endpoint,
        region_name=region,
        config=Config(
            signature_version="s3v4",
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=read_seconds,
            retries={"max_attempts": 2},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    # botocore offers no public way; tests/runtime/remote/test_s3.py fails where another botocore has another way.
    made._endpoint.http_session = _Bounded(made._endpoint.http_session, repeats_silent)
    return made


class _Bounded:
    """botocore's HTTP session. An answer above MOST_BYTES fails as a lost connection does."""

    def __init__(self, session: Any, repeats_silent: bool) -> None:
        self._session = session
        self._repeats_silent = repeats_silent

    def send(self, request: Any) -> Any:
        from botocore.awsrequest import AWSResponse
        from botocore.exceptions import ConnectTimeoutError, ReadTimeoutError

        is_stream, request.stream_output = request.stream_output, True
        try:
            answer = self._session.send(request)
            if is_stream and answer.status_code < 300:
                return answer
            content = _read(answer.raw, request)
        except (ConnectTimeoutError, ReadTimeoutError) as error:
            if self._repeats_silent:
                raise
            raise _final(error) from error
        return AWSResponse(answer.url, answer.status_code, answer.headers, _Content(content))

    def close(self) -> None:
        self._session.close()


def _final(error: Exception) -> Exception:
    """The error under its name, but of a type after which botocore does not send the request again."""
    from botocore.exceptions import BotoCoreError

    kind: Callable[..., Exception] = type(type(error).__name__, (BotoCoreError,), {"fmt": "{error}"})
    return kind(error=error)


class _Content:
    """The source of an answer's bytes for botocore."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self) -> Iterator[bytes]:
        yield self._content


def _read(raw: Any, request: Any) -> bytes:
    """The whole body. Raises ConnectionClosedError, ReadTimeoutError."""
    from botocore.exceptions import ConnectionClosedError, ReadTimeoutError
    from urllib3.exceptions import HTTPError
    from urllib3.exceptions import ReadTimeoutError as SilentError

    content = bytearray()
    try:
        for chunk in raw.stream():
            content += chunk
            if len(content) > MOST_BYTES:
                raw.close()
                raise ConnectionClosedError(request=request, endpoint_url=request.url)
    except SilentError as error:
        raise ReadTimeoutError(endpoint_url=request.url, error=error) from error
    except HTTPError as error:
        raise ConnectionClosedError(request=request, endpoint_url=request.url) from error
    raw.release_conn()
    return bytes(content)
