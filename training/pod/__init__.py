"""What runs on a machine: run.sh from start to end, and between these `python -m training.pod`."""
