"""`python -m serverless` runs the RunPod worker."""

import sys
from pathlib import Path

# Before the working directory and PYTHONPATH, where a user may have a models.py or an inference.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from serverless.main import main

main()
