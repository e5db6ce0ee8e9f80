"""Leave-last-out questions on sequences of behaviours."""
