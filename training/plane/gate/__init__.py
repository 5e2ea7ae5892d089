"""The gate: whether a trained model is better than the model in service. Pure functions over numpy arrays."""
