"""What a recipe would do, told before it does it."""
