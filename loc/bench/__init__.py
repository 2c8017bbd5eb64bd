"""Benchmarks of `loc` itself: ratios inside one run (`loc bench`)."""
