"""Artefacts on disk: stores of immutable parts, products, fingerprints."""
