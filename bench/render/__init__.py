"""A report as people read it: a table on the terminal, one HTML page."""
