"""What kernels are written with: their declaration, and the words of TIR they share."""
