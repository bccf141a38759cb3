"""Reward models: trained, judged, and used as rewards."""
