"""The source of Triton's model repository, and what writes the live one."""
