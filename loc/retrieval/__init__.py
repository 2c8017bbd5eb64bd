"""Search over global descriptors."""
