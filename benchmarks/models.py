"""Write the table of docs/models.md: what becomes of every architecture of `transformers` that writes text.

    python benchmarks/models.py

Takes a few minutes on one core.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import torch  # noqa: E402
import transformers  # noqa: E402

from architecture_trials import check  # noqa: E402
from architectures import architectures  # noqa: E402

DOCS = ROOT / "docs" / "models.md"
HEAD = "| architecture | model type | sampled = scored | trained | saved | |\n|---|---|---|---|---|---|\n"


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    lines = []
    for name, model_type in architectures().items():
        with tempfile.TemporaryDirectory() as folder:
            lines.append(check(name, model_type, Path(folder)).line)
        print(lines[-1], flush=True)
    before = DOCS.read_text().partition(HEAD)[0]
    DOCS.write_text(before + HEAD + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
