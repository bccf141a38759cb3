"""Measuring what an author writes."""
