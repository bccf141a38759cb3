"""Every architecture of `transformers` that writes text, against the table in the docs."""

from __future__ import annotations

from pathlib import Path

import pytest

from architecture_trials import check
from architectures import Row, architectures

DOCS = Path(__file__).parents[2] / "docs" / "models.md"


# The ways in which models differ most, and a quarter of the others; `benchmarks/models.py` tries all of them.
PECULIAR = {
    "BambaForCausalLM",
    "Gemma3ForConditionalGeneration",
    "JambaForCausalLM",
    "Lfm2ForCausalLM",
    "Mamba2ForCausalLM",
    "MambaForCausalLM",
    "MarianMTModel",
    "OPTForCausalLM",
    "OpenAIGPTLMHeadModel",
    "Qwen3_5ForConditionalGeneration",
    "Qwen3VLForConditionalGeneration",
    "Qwen3NextForCausalLM",
    "RecurrentGemmaForCausalLM",
    "RwkvForCausalLM",
    "XLNetLMHeadModel",
}
SAMPLED = [name for i, name in enumerate(architectures()) if i % 4 == 0 or name in PECULIAR]


def table() -> dict[str, str]:
    """Lines of the table by architecture."""
    lines = [line for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    return {line.split("`")[1]: line for line in lines}


def test_the_table_has_every_architecture() -> None:
    assert list(table()) == list(architectures())
    assert sum("| yes | yes | yes |" in line for line in table().values()) >= 180


@pytest.mark.filterwarnings("ignore")  # of the architectures' own
@pytest.mark.parametrize("name", SAMPLED)
def test_an_architecture_does_what_the_table_says(name: str, tmp_path: Path) -> None:
    row: Row = check(name, architectures()[name], tmp_path)
    assert row.line == table()[name]
