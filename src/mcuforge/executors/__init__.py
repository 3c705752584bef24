"""Executors: what calls a model's kernels in order, as C, beside its header and its weights."""
