"""The programs on a machine: run.sh from start to end, and in between `python -m training.pod`."""
