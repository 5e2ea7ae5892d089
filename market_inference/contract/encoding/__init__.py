"""The wire format: fields, twin messages, and messages split into items."""
