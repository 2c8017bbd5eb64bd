"""Errors and recall of poses."""
