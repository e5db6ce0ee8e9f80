"""The source of Triton's model repository, and what renders the live one."""
