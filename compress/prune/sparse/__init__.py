"""Training that makes pruning cheap: penalties on the units that the pruner takes away, before it does."""
