"""From the data of users to float64 arrays: the common place of all methods, both clients and the command line.

Recognises lists, numpy arrays, mappings, rows, and frames of pandas, polars or pyarrow by shape and never by type:
pandas, polars and pyarrow are not imported. The service checks limits on lengths and values. An argument without a form
in the contract is refused here with ArgumentError, with the argument's name, the value and the expected form.
"""
