"""Every request has an id: the caller's, or a new and unique id."""

import subprocess
import sys
import uuid

import pytest

from market_inference.contract import metadata

# More than are made at once.
MANY = 350
FORK = """
import os
from market_inference.contract import metadata

metadata.request_id()
theirs, ours = os.pipe()
if child := os.fork():
    os.waitpid(child, 0)
    print(metadata.request_id(), os.read(theirs, 99).decode())
else:
    os.write(ours, metadata.request_id().encode())
"""


def test_the_callers_own_id_is_kept():
    assert metadata.request_id(None, "run/7", "other") == "run/7"


@pytest.mark.parametrize("harmful", [None, b"bytes", "", "two words", "a\nb", "x" * 129])
def test_a_missing_or_unusable_id_is_replaced(harmful):
    assert uuid.UUID(metadata.request_id(harmful)).version == 4


def test_new_ids_are_random_uuids_and_all_different():
    made = [metadata.request_id() for _ in range(MANY)]
    assert len(set(made)) == MANY
    for text in made:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.variant, parsed.version) == (text, uuid.RFC_4122, 4)


def test_processes_that_fork_share_no_ids():
    said = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True, timeout=250).stdout
    parent, child = said.split()
    assert parent != child
