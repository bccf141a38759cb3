"""The loop that knows no algorithm by name: collect, reward, advantages, updates, evaluation."""
