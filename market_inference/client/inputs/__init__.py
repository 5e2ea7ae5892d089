"""From the data of users to float64 arrays: the one place for all methods, both clients and the command line.

Recognises lists, numpy arrays, mappings, rows, and frames of pandas, polars or pyarrow, by their shape and never by
their type: none of these libraries is imported. Limits on lengths and values are the service's to check. An argument
that has no form in the contract is refused here with ArgumentError, which names the argument, its value and what is
expected.
"""
