"""The commands of `market-inference`, one file each. Heavy modules load inside a command, so that --help is instant."""
