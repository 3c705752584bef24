"""Arithmetic without TIR: TFLite's, the steps of a requantization, and constants that hit them."""
