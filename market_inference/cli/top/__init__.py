"""What `market-inference top` shows: /metrics read twice, and what happened in between."""
