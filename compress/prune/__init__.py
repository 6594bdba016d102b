"""Structured pruning: channels, hidden units and heads physically gone, from the exported graph, without hints."""
