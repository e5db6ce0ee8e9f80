"""Click data sets → variants → tables."""
