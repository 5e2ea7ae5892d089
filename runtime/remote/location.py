"""The address of a bucket, or of a folder in a bucket."""

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True, slots=True)
class Location:
    """s3://bucket/prefix, with ?endpoint=http://host:port&region=name where needed. The prefix ends with a slash."""

    bucket: str
    prefix: str
    endpoint: str | None
    region: str

    @classmethod
    def of(cls, address: str, *, whole: bool = False) -> "Location":
        """`whole`: an address without a prefix. Raises ValueError when this is no such address."""
        parts = urlsplit(address)
        prefix = parts.path.strip("/")
        if parts.scheme != "s3" or not parts.netloc or (whole and prefix):
            form = "s3://bucket" if whole else "s3://bucket/prefix"
            raise ValueError(f"must be {form}, with ?endpoint=URL&region=NAME where needed")
        query = parse_qs(parts.query)
        return cls(
            parts.netloc,
            f"{prefix}/" if prefix else "",
            query.get("endpoint", [None])[0],
            query.get("region", ["us-east-1"])[0],
        )
