"""mcuforge: neural networks compiled to, and benchmarked on, microcontrollers."""

__version__ = "0.1.0"
