"""Which models there are, and how they come and go."""
