"""The events that producers publish: their types, their encoding, their schemas."""
