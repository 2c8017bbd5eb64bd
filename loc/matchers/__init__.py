"""Matchers: one file per method, each a complete plug-in."""
