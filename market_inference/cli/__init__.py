"""The command line, the demo, `top`, and the pair as child processes."""
