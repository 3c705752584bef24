"""Kernels of cores with Helium, the vector extension of Armv8.1-M."""
