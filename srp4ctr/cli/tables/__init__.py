"""Results → what a person reads in a terminal: tables, progress, errors in a sentence."""
