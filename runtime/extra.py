"""Optional packages (extras) that some settings need."""


def install(extra: str) -> str:
    """The command that installs an extra. No package index has the project."""
    return f"pip install -c constraints/runtime.txt -e '.[{extra}]' in the checkout"


class ExtraMissingError(Exception):
    """A setting needs a package that is not installed. The text names the extra that installs the package."""

    def __init__(self, setting: str, extra: str) -> None:
        super().__init__(f"{setting} needs packages that are not installed: {install(extra)}")
