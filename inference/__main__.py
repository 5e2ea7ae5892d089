"""`python -m inference` runs the service."""

from inference.main import main

main()
