"""`python -m market_inference` is the command line."""

from market_inference.cli.main import main

main(prog_name="market-inference")
