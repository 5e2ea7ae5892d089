"""Packages that only some settings need."""


class ExtraMissingError(Exception):
    """A setting asks for a package that is not installed; the text says which extra brings it."""

    def __init__(self, setting: str, extra: str) -> None:
        super().__init__(f"{setting} needs packages that are not installed: pip install 'market-inference[{extra}]'")
