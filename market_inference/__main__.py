"""`python -m market_inference` is the command line."""

from market_inference.cli import main

main(prog_name="market-inference")
