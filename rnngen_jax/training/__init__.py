"""Training: the optimisers, the step, parallelism, checkpoints, metric sinks and the loop."""
