"""Language models: loading and saving, decoding, scoring, value functions."""
