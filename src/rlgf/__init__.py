"""Reinforcement learning with guided feedback for language models (arXiv 2306.11816)."""
