"""Optional packages (extras) that some settings need."""


class ExtraMissingError(Exception):
    """A setting needs a package that is not installed. The text names the extra that installs the package."""

    def __init__(self, setting: str, extra: str) -> None:
        super().__init__(f"{setting} needs packages that are not installed: pip install 'market-inference[{extra}]'")
