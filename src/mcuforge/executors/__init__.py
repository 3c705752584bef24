"""What calls the kernels of a compiled model: the files of its program."""
