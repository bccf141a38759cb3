"""The mark of tests that run vLLM."""

from __future__ import annotations

import importlib.util

import pytest

NEEDS_VLLM = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: run 'make test-vllm'"
    ),
]
