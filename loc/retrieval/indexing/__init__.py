"""What an index of vectors on disk consists of (:mod:`loc.retrieval.index`)."""
