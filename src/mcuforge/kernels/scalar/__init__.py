"""Kernels in plain C for cores without SIMD: blocks that keep registers busy."""
