"""Real reviews and small models that install from PyPI, for the demo, the examples and the tests."""
