"""A run: its loop, its checkpoints, its log."""
