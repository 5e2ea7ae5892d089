"""`python -m training.recipes.sample ROWS`: labelled headlines for a first try, as CSV on standard output.

The sentences are made from templates of our own (training/sentiment/phrases.toml) with known sentiment, a day apart.
"""

import csv
import sys
from datetime import UTC, datetime, timedelta

from training.sentiment.phrases import phrases

_FIRST = datetime(2024, 1, 2, 9, 30, tzinfo=UTC)
_SEED = 7


def main() -> None:
    """Write the rows."""
    writer = csv.writer(sys.stdout)
    writer.writerow(["text", "label", "time"])
    for place, row in enumerate(phrases(int(sys.argv[1]), _SEED)):
        writer.writerow([row.text, row.label, (_FIRST + timedelta(days=place)).isoformat()])


if __name__ == "__main__":
    main()
