"""What all processes agree on: generated messages, methods, errors, metadata, encoding and validation."""
