"""One company in a text: the company's mentions, and the text in the forms that ask for the sentiment towards it.

masked() is for models that were trained on it, such as the embedded one: the model sees [MASK] in the company's places
and answers for the company. clauses() is for all other classifiers: a headline on two companies often has a clause for
each. Training and serving use the same functions.
"""

import re
from functools import lru_cache

MASK = "[MASK]"

# Legal forms at the end of a name; a text often leaves them out.
_FORM = re.compile(
    r"[\s,]+(?:inc|corp|corporation|co|company|ltd|limited|plc|ag|sa|se|nv|ab|asa|oyj|group|holdings?|llc|gmbh|spa)\.?$",
    re.IGNORECASE,
)
# For texts with single spaces: over runs of spaces the search would take quadratic time.
_PUNCTUATION = r"[;,:.?!|] | [-–—] "
_WORDS = "while|but|as|after|and|despite|amid|whereas|even|by"
_BOUNDARY = re.compile(rf"(?:{_PUNCTUATION}| )(?:{_WORDS}) |{_PUNCTUATION}", re.IGNORECASE)


def mentions(text: str, company: str) -> bool:
    """Whether the text names the company.

    A mention is the name as whole words, with or without a legal form ("Inc.") or a cashtag's "$", in any case.
    """
    return _mention(text, company) is not None


def masked(text: str, company: str) -> str:
    """The text with MASK for every mention of the company; the text itself without one.

    Letters' case counts unless no mention has the name's case: "Target" is then not the verb of "to target Target".
    """
    pattern = _mention(text, company)
    return pattern.sub(MASK, text) if pattern else text


def clauses(text: str, company: str) -> str:
    """The clauses of a text that mention the company; the whole text where such a clause holds nothing else."""
    pattern, text = _mention(text, company), " ".join(text.split())
    found = [part for part in _BOUNDARY.split(text) if pattern and pattern.search(part)]
    return ". ".join(found) if any(pattern and pattern.sub("", part).strip() for part in found) else text


def _mention(text: str, company: str) -> re.Pattern[str] | None:
    return next((pattern for pattern in _patterns(company) if pattern.search(text)), None)


@lru_cache(maxsize=4096)
def _patterns(company: str) -> tuple[re.Pattern[str], ...]:
    """From the strictest to the loosest: the whole name, then without its legal form; each first with its case."""
    whole = " ".join(company.split()).removeprefix("$")
    names = [name for name in dict.fromkeys((whole, _FORM.sub("", whole))) if name]
    return tuple(
        re.compile(r"(?<!\w)\$?" + r"\s+".join(map(re.escape, name.split())) + r"(?!\w)", flags)
        for flags in (0, re.IGNORECASE)
        for name in names
    )
