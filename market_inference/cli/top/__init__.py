"""The view of `market-inference top`: the rates between two scrapes of every service's /metrics."""
