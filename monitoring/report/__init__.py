"""The comparison of versions as one HTML file, for someone without access to the system."""
