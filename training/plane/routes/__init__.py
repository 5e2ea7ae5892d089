"""The HTTP routes, one file for each noun. A route reads, calls one verb of the store, and answers."""
