"""Event → sequence, and impression + click → label."""
