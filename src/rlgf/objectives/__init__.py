"""Losses, and the way from rewards to advantages: pure functions."""
