"""Threads, event loops, timeouts, forks and connections: the layer below everything else."""
