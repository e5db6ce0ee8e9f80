"""Served requests compared with what training makes of them."""
