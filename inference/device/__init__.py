"""The threads owning a device, and the metrics of a device."""
