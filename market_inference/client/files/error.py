"""The error of a file that cannot be read as bars."""


class FileError(ValueError):
    """A file that is not understood, or not without a decision by the user.

    The message is one line: the file, the row, the likely reason, and the option that settles the question.
    """
