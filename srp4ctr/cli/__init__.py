"""The command line, one file a noun: parse, load the settings, call one function."""
