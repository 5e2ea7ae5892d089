"""The contract's rules: which there are, a fast check, and a check that explains."""
