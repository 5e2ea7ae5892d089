"""Answers as tables and pictures: frames of pandas or polars with the caller's dates, HTML for notebooks, plots."""
