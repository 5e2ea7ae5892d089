"""Tables in and out: text/csv and Arrow IPC streams, for spreadsheets, R and data frames."""
