"""Quantization: from a float graph to one whose values are integers, with the scales that a target's kernels want."""
