"""A small town, rendered: the photographs of `loc demo`, with exact ground truth."""
