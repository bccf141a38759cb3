"""Whether a run goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rlgf.run.alive import goes_on


def test_a_run_that_is_killed_has_ended(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: run\n")
    code = f"from pathlib import Path; from rlgf.run.alive import Hold; held = Hold(Path({str(tmp_path)!r})); print(1, flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert goes_on(tmp_path)
    process.kill()
    process.communicate()
    assert not goes_on(tmp_path)
