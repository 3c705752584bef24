"""The instructions cores offer kernels, as data; see ``isa.instruction``."""
