"""Arithmetic that equals the reference to the last bit, without TIR."""
