"""From optimized TIR to code: kernels as C or LLVM, calls over named tensors, their memory."""
