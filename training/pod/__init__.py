"""The program of a machine: run.sh from start to end, and between these `python -m training.pod`."""
