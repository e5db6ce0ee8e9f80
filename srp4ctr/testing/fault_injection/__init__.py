"""A cluster with faults, its traffic, and the reference it is compared with."""
