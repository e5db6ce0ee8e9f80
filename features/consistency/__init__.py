"""The online store compared with the raw log."""
