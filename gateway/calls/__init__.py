"""A call from its admission to its one outcome."""
