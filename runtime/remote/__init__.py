"""HTTP APIs of other companies that several services call."""
