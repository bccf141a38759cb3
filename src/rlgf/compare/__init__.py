"""Grids of runs, and the tables and curves they end in."""
