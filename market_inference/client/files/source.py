"""The bytes of a file: from a path, from standard input or from an open binary file, decompressed.

Owns compressed files and archives, and the refusal of formats that are not read, by the first bytes.
"""

import bz2
import gzip
import io
import lzma
import sys
import zipfile
import zlib
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from market_inference.client.files.error import FileError

LARGEST = 512 << 20
"""Bytes of a decompressed file. Larger files are refused: a small archive can hold any number of bytes."""
_PART = 16 << 20
STDIN = "-"
_SUFFIXES = (".gz", ".bz2", ".xz", ".zip", ".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet", ".prn")
_UNREAD = (
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (xls): save the sheet as CSV"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: decompress the file first"),
    (b"%PDF", "a PDF, not a table"),
    (b"\x89PNG", "a picture (PNG), not a table"),
    (b"\xff\xd8\xff", "a picture (JPEG), not a table"),
    (b"GIF8", "a picture (GIF), not a table"),
    (b"II*\x00", "a picture (TIFF), not a table"),
    (b"MM\x00*", "a picture (TIFF), not a table"),
    (b"RIFF", "a picture or a sound (RIFF), not a table"),
    (b"\x7fELF", "a program, not a table"),
    (b"\x89HDF", "an HDF5 file: read the frame with pandas.read_hdf and pass the frame"),
    (b"ARROW1", "a Feather file: save as parquet or CSV"),
    (b"7z\xbc\xaf", "a 7z archive: unpack the file first"),
    (b"Rar!", "a RAR archive: unpack the file first"),
    (b"SQLite format 3", "a SQLite database: read the table with pandas.read_sql and pass the frame"),
    (b"\x80\x04\x95", "a Python pickle, which can run code when loaded; save as parquet or CSV"),
    (b"\x80\x05\x95", "a Python pickle, which can run code when loaded; save as parquet or CSV"),
)


@dataclass(frozen=True, slots=True)
class Source:
    """`name`: the file's name, for messages. `stem`: the name without endings, "" for standard input."""

    name: str
    stem: str
    data: bytes
    compression: str


def _read(file: BinaryIO) -> bytes:
    """The rest of the file, or LARGEST bytes and some more. An unbuffered pipe gives fewer bytes than asked for."""
    parts: list[bytes] = []
    size = 0
    while size <= LARGEST and (part := file.read(min(_PART, LARGEST + 1 - size))):
        given: object = part
        parts.append(given.encode() if isinstance(given, str) else part)
        size += len(parts[-1])
    return b"".join(parts)


def load(file: str | Path | BinaryIO) -> Source:
    """The decompressed bytes of a file; "-" is standard input. Raises FileError."""
    if isinstance(file, str | Path):
        name = "standard input" if str(file) == STDIN else str(file)
        try:
            with nullcontext(sys.stdin.buffer) if str(file) == STDIN else Path(file).open("rb") as opened:
                data = _read(opened)
        except OSError as error:
            raise FileError(f"{name}: {error.strerror or error}") from None
        stem = "" if str(file) == STDIN else _stem(Path(file).name)
    else:
        name = str(getattr(file, "name", "the file"))
        data = _read(file)
        stem = _stem(Path(name).name) if hasattr(file, "name") else ""
    try:
        data, compression, member = _decompressed(data)
    except (
        OSError,
        EOFError,
        lzma.LZMAError,
        zlib.error,
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
    ) as bad:
        raise FileError(f"{name}: a damaged or encrypted compressed file ({bad})") from None
    except FileError as error:
        raise FileError(f"{name}: {error}") from None
    if not data.strip(b"\x00\r\n\t \xef\xbb\xbf\xff\xfe"):
        raise FileError(f"{name}: the file is empty")
    for magic, reason in _UNREAD:
        if data.startswith(magic):
            raise FileError(f"{name}: {reason}")
    return Source(name, stem or _stem(member), data, compression)


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    while path.suffix.lower() in _SUFFIXES:
        path = path.with_suffix("")
    return path.name


def _decompressed(data: bytes) -> tuple[bytes, str, str]:
    """The bytes, the compression for messages, and the name of an archive's member."""
    for magic, label, opened in (
        (b"\x1f\x8b", "gzip", gzip.open),
        (b"BZh", "bzip2", bz2.open),
        (b"\xfd7zXZ", "xz", lzma.open),
    ):
        if data.startswith(magic):
            with opened(io.BytesIO(data)) as stream:
                return _bounded(stream), label, ""  # type: ignore[arg-type]
    if data.startswith(b"PK\x03\x04"):
        return _member(data)
    if len(data) > LARGEST:
        raise FileError(f"larger than {LARGEST >> 20} MiB")
    return data, "", ""


def _bounded(stream: BinaryIO) -> bytes:
    data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise FileError(f"larger than {LARGEST >> 20} MiB after decompression")
    return data


def _member(data: bytes) -> tuple[bytes, str, str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
        if "xl/workbook.xml" in names:
            raise FileError("an Excel workbook: save the sheet as CSV, or pass the frame of pandas.read_excel")
        if "content.xml" in names:
            raise FileError("an OpenDocument spreadsheet: save the sheet as CSV")
        if len(names) != 1:
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise FileError(f"a zip archive with {len(names)} files ({shown}): unpack the archive, and give one file")
        with archive.open(names[0]) as stream:
            return _bounded(stream), "zip", PurePosixPath(names[0]).name  # type: ignore[arg-type]
