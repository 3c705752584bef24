"""Kernels of cores with the DSP extension of Armv7E-M."""
