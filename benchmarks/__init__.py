"""One file per claim of the README; each prints a table and, last, one JSON object."""
