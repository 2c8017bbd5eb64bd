"""Aggregated selective match kernels and VLAD over local features, whole images and regions of them."""
