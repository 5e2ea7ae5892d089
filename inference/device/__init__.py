"""The threads that own a device, and what a device says of itself."""
