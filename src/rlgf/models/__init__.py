"""Language models: loading and saving, decoding, scoring, value functions."""

# Whoever asks for a model's abilities needs the trial that finds them.
from rlgf.models import trial as trial
