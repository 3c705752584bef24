"""The DSP extension of Cortex-M4, M7 and M33 (ARMv7E-M, ARMv8-M), a file a theme."""
