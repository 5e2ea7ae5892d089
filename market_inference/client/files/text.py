"""Text from bytes: the encoding by byte order mark, by valid UTF-8, by the zero bytes of UTF-16, else cp1252."""

import codecs

from market_inference.client.files.error import FileError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 4096
GUESSED = "cp1252"
"""The encoding of bytes that are neither marked nor valid UTF-8; every byte sequence in a European code page fits."""
ALTERNATIVES = ("gb18030", "cp932", "cp1251", "cp1250", "big5", "euc-kr")
"""Encodings to try if the header is not understood in the guessed encoding."""


def decode(data: bytes, encoding: str | None) -> tuple[str, str]:
    """The text and the name of the encoding. Raises FileError for bytes that are not text in the encoding."""
    chosen = encoding or _detected(data)
    if encoding and data.startswith(codecs.BOM_UTF8) and codecs.lookup(encoding).name == "utf-8":
        chosen = "utf-8-sig"
    try:
        text = data.decode(chosen)
    except (UnicodeDecodeError, UnicodeError) as error:
        line = data[: getattr(error, "start", 0)].count(b"\n") + 1
        if not encoding and chosen == GUESSED:
            reason = f"neither UTF-8 nor {chosen}: no table of text, or give its encoding, such as --encoding gb18030"
        else:
            other = "cp1252" if chosen != "cp1252" else "utf-8"
            reason = f"not valid {chosen}; give the encoding, such as --encoding {other}"
        raise FileError(f"row {line}: {reason}") from None
    if "\x00" in text:
        raise FileError("the file holds zero bytes: not a text file, or the encoding must be given (--encoding utf-16)")
    return text, chosen.removesuffix("-sig")


def _detected(data: bytes) -> str:
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    sample = data[:_SAMPLE]
    zeros = sample.count(0)
    if zeros > len(sample) // 4:
        return "utf-16-le" if sample[1::2].count(0) >= sample[::2].count(0) else "utf-16-be"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return GUESSED
    return "utf-8"
