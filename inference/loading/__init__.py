"""Models: which are known, loading and unloading them."""
