"""Files in anyone's columns → events: a mapping says which column is what."""
