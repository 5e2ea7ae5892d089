"""`market-inference deploy` and `python -m serverless.deploy` are this command."""

import sys
from pathlib import Path

# Before the working directory and PYTHONPATH, where a user may have modules of the same names.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from serverless.deploy.command import deploy

deploy(prog_name="market-inference deploy")
