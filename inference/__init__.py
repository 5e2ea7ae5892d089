"""The inference service: decodes requests, batches their items, runs them on the device and encodes the answers."""
