"""`python -m serverless.deploy`; `market-inference deploy` starts the same command."""

import sys
from pathlib import Path

# First on the path: the working directory or PYTHONPATH may hold a user's modules of the same names.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from serverless.deploy.command import deploy

deploy(prog_name="market-inference deploy")
