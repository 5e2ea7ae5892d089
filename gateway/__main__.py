"""`python -m gateway` runs the gateway."""

from gateway.main import main

main()
