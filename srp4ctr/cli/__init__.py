"""The command line, one file per noun: parse, load the settings, call one function."""
