"""Runs as a page that opens in any browser: what ran, how it went, and the texts."""
