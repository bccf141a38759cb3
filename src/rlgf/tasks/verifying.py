"""What a data set's own verifier says of an answer. One that might not come to an end is asked in a process of its own.

Some verifiers work out what looks like an expression, and a policy writes ``9**9**9`` sooner or later.
"""

from __future__ import annotations

import atexit
import json
import pickle
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from rlgf.errors import UserError
from rlgf.tasks.reasoning import problems

_SECONDS = 5.0
_ENDLESS = re.compile(r"\*\*|\^|!|<<|[A-Za-z_]\s*\(")
"""Powers, factorials, shifts and calls: in expressions only these make large numbers of short texts."""


def verified(answer: str, dataset: str, options: Mapping[str, Any], entry: Mapping[str, Any]) -> float:
    """A score from 0 to 1; 0 where the verifier fails on the answer, or takes more than 5 seconds.

    Raises:
        UserError: see `problems`.
    """
    question = answer, dataset, json.dumps(dict(options)), dict(entry)
    return _ASIDE.ask(question) if _ENDLESS.search(answer) else _score(*question)


@lru_cache(maxsize=64)
def _verifying(dataset: str, options: str) -> Any:
    return problems(dataset, json.loads(options))


def _score(answer: str, dataset: str, options: str, entry: dict[str, Any]) -> float:
    try:
        return float(_verifying(dataset, options).score_answer(answer, entry))
    except UserError:
        raise
    except Exception:  # a text of any kind is put before it
        return 0.0


class _Aside:
    """A process that scores, and is gone where that took too long; the next question begins another."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def ask(self, question: tuple[Any, ...]) -> float:
        with self._lock:
            process = self._process or self._begun()
            assert process.stdin is not None, "opened as a pipe"
            assert process.stdout is not None, "opened as a pipe"
            try:
                pickle.dump(question, process.stdin)
                process.stdin.flush()
                return float(pickle.load(process.stdout))
            except (EOFError, OSError):
                self.end()
                return 0.0

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _begun(self) -> subprocess.Popen[bytes]:
        """
        Raises:
            UserError: it does not start.
        """
        # In a session of its own, since Ctrl-C is for the run.
        process = self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None, "opened as a pipe"
        try:
            pickle.load(process.stdout)  # loading the data sets is not the answer's time
        except EOFError as error:
            self.end()
            raise UserError(
                f"the process that asks the verifier does not start: see above, or try {sys.executable} -c 'import rlgf'."
            ) from error
        return process


_ASIDE = _Aside()
atexit.register(_ASIDE.end)


def serve() -> None:
    """Score what comes on standard input until it is closed. An alarm that nobody catches ends what takes too long."""
    answers, sys.stdout = sys.stdout.buffer, sys.stderr  # what a verifier prints is no answer
    import reasoning_gym.factory  # noqa: F401

    pickle.dump("ready", answers)
    answers.flush()
    while True:
        try:
            question = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, _SECONDS)
        score = _score(*question)
        signal.setitimer(signal.ITIMER_REAL, 0)
        pickle.dump(score, answers)
        answers.flush()
