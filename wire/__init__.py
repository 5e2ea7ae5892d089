"""What both processes and the client must agree on: the contract's rules, errors, metadata names, deadlines, logs."""
