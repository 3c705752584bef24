"""A core's pipeline and memory as data; modelled cycles of an ELF."""
