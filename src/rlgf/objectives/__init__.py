"""What is minimized, and from rewards to advantages: pure functions."""
