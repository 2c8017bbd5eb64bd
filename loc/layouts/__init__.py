"""Reading scenes: a folder of photos, a COLMAP model, or hloc's lists."""
