"""Objects in an S3 bucket, with addresses signed by S3's scheme (Signature Version 4).

Owns the translation to boto3. A presigned PUT binds the length and the condition that the key is new, so that neither
a larger body nor a second upload passes.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError

from runtime.remote import s3
from runtime.remote.location import Location
from training.plane.objects import CHUNK_BYTES, ObjectMissingError, ObjectsAwayError, ObjectsFullError, SignedUpload

ANSWER_SECONDS: Final = 8.0
"""How long the store may be silent. Joining the parts of an object may take longer."""


class BucketObjects:
    """Objects of one bucket."""

    streamed = False

    def __init__(self, location: Location, seconds: float = ANSWER_SECONDS) -> None:
        self._bucket = location.bucket
        self._s3 = s3.client(location.endpoint, location.region, read_seconds=seconds)
        self._patient = s3.client(location.endpoint, location.region)

    def upload_url(self, key: str, size: int, seconds: float) -> SignedUpload:
        bound = {"Bucket": self._bucket, "Key": key, "ContentLength": size, "IfNoneMatch": "*"}
        url = self._s3.generate_presigned_url("put_object", Params=bound, ExpiresIn=int(seconds))
        return SignedUpload(url, {"If-None-Match": "*"})

    def begin_parts(self, key: str) -> str:
        with _translated(key):
            made: str = self._s3.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"]
            return made

    def part_url(self, key: str, upload: str, number: int, size: int, seconds: float) -> SignedUpload:
        bound = {"Bucket": self._bucket, "Key": key, "UploadId": upload, "PartNumber": number, "ContentLength": size}
        return SignedUpload(self._s3.generate_presigned_url("upload_part", Params=bound, ExpiresIn=int(seconds)))

    def complete_parts(self, key: str, upload: str, etags: Sequence[str]) -> None:
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, start=1)]
        with _translated(key):
            self._patient.complete_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
            )

    def abort_parts(self, key: str, upload: str) -> None:
        with contextlib.suppress(ObjectMissingError), _translated(key):
            self._s3.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)

    def signed_download(self, key: str, seconds: float, name: str) -> str:
        disposition = f"attachment; filename*=UTF-8''{quote(name)}"
        asked = {"Bucket": self._bucket, "Key": key, "ResponseContentDisposition": disposition}
        url: str = self._s3.generate_presigned_url("get_object", Params=asked, ExpiresIn=int(seconds))
        return url

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        span = {} if start == 0 and end is None else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        with _translated(key):
            body = self._s3.get_object(Bucket=self._bucket, Key=key, **span)["Body"]
        return _chunks(key, body)

    def size(self, key: str) -> int:
        with _translated(key):
            found: int = self._s3.head_object(Bucket=self._bucket, Key=key)["ContentLength"]
            return found

    def put(self, key: str, content: bytes) -> None:
        with _translated(key):
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=content)

    def empty(self, key: str) -> None:
        self.put(key, b"")

    def delete(self, key: str) -> None:
        with contextlib.suppress(ObjectMissingError), _translated(key):
            self._s3.delete_object(Bucket=self._bucket, Key=key)


def _chunks(key: str, body: Any) -> Iterator[bytes]:
    with contextlib.closing(body), _translated(key):
        yield from body.iter_chunks(CHUNK_BYTES)


_MISSING = {"404", "NoSuchKey", "NoSuchUpload", "InvalidPart", "InvalidPartOrder", "EntityTooSmall"}
_FULL = {"QuotaExceeded", "XMinioStorageFull", "507"}


@contextlib.contextmanager
def _translated(key: str) -> Iterator[None]:
    """boto3's errors as those of objects.py."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _MISSING:
            raise ObjectMissingError(key) from error
        raise (ObjectsFullError if code in _FULL else ObjectsAwayError)(f"S3 answered {code}") from error
    except BotoCoreError as error:
        raise ObjectsAwayError(f"S3 does not answer: {type(error).__name__}") from error
    except (KeyError, ValueError) as error:
        raise ObjectsAwayError(f"S3 answered in another form: {error}") from error
