"""Bridges to other toolboxes: their models here, ours there."""
