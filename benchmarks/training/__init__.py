"""Real planes of the training service for tests and for the chaos run, with a pod that stands in for training."""
