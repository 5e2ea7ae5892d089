"""Checks of a dataset's content, one file each. A check reads rows once, in order, and keeps bounded memory."""
