"""The dashboards for the engineer on call, from callers to device, one file per dashboard.

generate.py writes the JSON for Grafana.
"""

from observability.boards.batching import BATCHING
from observability.boards.edge import EDGE
from observability.boards.limits import LIMITS
from observability.boards.overview import OVERVIEW
from observability.boards.sessions import SESSIONS
from observability.boards.training import TRAINING

DASHBOARDS = (OVERVIEW, BATCHING, LIMITS, SESSIONS, EDGE, TRAINING)
