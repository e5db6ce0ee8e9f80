"""The online store: rows written by the stream, read by serving."""
