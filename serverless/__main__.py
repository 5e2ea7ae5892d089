"""`python -m serverless` runs the RunPod worker."""

import sys
from pathlib import Path

# First on the path: the working directory or PYTHONPATH may hold a user's models.py or inference.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from serverless.main import main

main()
