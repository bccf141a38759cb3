"""Authors by name."""

from __future__ import annotations

from known_rows import row


def test_a_dump_names_authors_in_words() -> None:
    dump = row("aggrevated").model_dump(mode="json")
    assert dump["script"] == {"rollin": "policy", "rollout": "guide"}
    assert dump["terms"]["policy"]["on"] == "rollin"
