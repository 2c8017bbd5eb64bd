"""Weights of plug-ins: where they lie, how they get there, how they are read."""
