"""A run on disk, from its first check to its last record."""
