"""`python -m training.plane` runs the training plane."""

from training.plane.main import main

main()
