"""COLMAP's part: database, verification, mapping, the map bundle, absolute pose."""
