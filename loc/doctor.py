"""`loc doctor`: is this environment, and is this data, fit for a run?"""
