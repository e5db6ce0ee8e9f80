"""Results → terminal output: tables, progress, errors in a sentence."""
