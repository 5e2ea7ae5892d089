"""The dashboards: what somebody on call looks at, from the callers inwards to the device. A file each.

generate.py writes the JSON that Grafana reads.
"""

from observability.boards.batching import BATCHING
from observability.boards.limits import LIMITS
from observability.boards.overview import OVERVIEW
from observability.boards.sessions import SESSIONS

DASHBOARDS = (OVERVIEW, BATCHING, LIMITS, SESSIONS)
