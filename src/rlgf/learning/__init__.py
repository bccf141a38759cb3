"""From episodes to gradients."""
