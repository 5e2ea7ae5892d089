"""Bars from the files that vendors, brokers and libraries write.

`read_bars` reads one instrument, `read` all instruments of a file; report.py looks for gaps and splits. A file that
leaves a question open which would change numbers is refused, with the row and the option that decides.
"""

from market_inference.client.files.bars import Bars
from market_inference.client.files.error import FileError
from market_inference.client.files.options import Options
from market_inference.client.files.reader import read, read_bars

__all__ = ["Bars", "FileError", "Options", "read", "read_bars"]
