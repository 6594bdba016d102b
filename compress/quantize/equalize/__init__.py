"""Cross-layer equalisation."""
