"""Jobs, their queues, and which items run next."""
