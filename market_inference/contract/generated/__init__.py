"""Generated protobuf code. Never edited: run `make proto`."""
