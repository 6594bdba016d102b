"""Mending what rounding broke, layer by layer: biases, rounding directions, ranges made equal across layers."""
