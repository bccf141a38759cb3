"""Making episodes: who writes what, decoding, splicing and scoring."""
