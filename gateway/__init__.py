"""The gateway: authenticates, validates, limits, and routes typed requests to the inference service. No torch in it."""
