"""Training with the rounding in place: the same plan, scales and converted graph as static quantization."""
