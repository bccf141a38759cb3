"""A trained policy on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

from rlgf.errors import UserError

NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""Of a repository of the hub."""
_MARKS = ("config.json", "adapter_config.json")
"""Of a folder with a model or an adapter in it."""
# The HTTP client of huggingface_hub is another package from version to version; all its errors have one ancestor.
_NOT_REACHED: tuple[type[Exception], ...] = (
    OSError,
    *(
        kind
        for kind in HfHubHTTPError.__mro__
        if issubclass(kind, Exception) and kind.__name__ == "HTTPError"
    ),
)


def push_to_hub(run: str | Path, to: str, *, private: bool = True) -> str:
    """Upload the policy of a finished run, with its model card, as a repository of the Hugging Face hub.

    Args:
        run: the output folder of a run, or a folder with a policy in it.
        to: the repository, ``owner/name``; it is made where it is not there yet.
        private: whether it is for its owner alone. A repository that is public already is then refused, and nothing
            is uploaded; one that is private stays so whatever is said here.

    Returns:
        The address of the repository.

    Raises:
        UserError: there is no trained policy, no token or no network, or the hub refuses.
    """
    folder = _policy_of(Path(run))
    _check_name(to)
    if get_token() is None:
        raise UserError(
            "there is no token for the Hugging Face hub: run `hf auth login`, or set HF_TOKEN to a token that may write."
        )
    with _told(to):
        api = HfApi(library_name="rlgf")
        address = str(api.create_repo(to, private=private, exist_ok=True))
        if private and not api.repo_info(to).private:
            raise UserError(
                f"{to} is public already, and what is uploaded there can be read by anybody: say --public, or name another."
            )
        api.upload_folder(repo_id=to, folder_path=folder, commit_message="Upload the policy of a run of rlgf")
    return address


def _policy_of(run: Path) -> Path:
    if (run / "policy").is_dir() and (run / "checkpoints").is_dir() and not (run / "summary.json").is_file():
        raise UserError(
            f"{run} goes on from an earlier end, and its policy is still the one of then: finish it with --resume, or "
            f"give {run / 'policy'} to push that one."
        )
    for folder in (run / "policy", run):
        if any((folder / mark).is_file() for mark in _MARKS):
            return folder
    raise UserError(
        f"{run} holds no trained policy: give the output folder of a run that has finished, such as runs/NAME, or a "
        "folder that a policy was saved in."
    )


def _check_name(to: str) -> None:
    if not NAME.fullmatch(to):
        raise UserError(f"'{to}' is no name of a repository: give owner/name.")


@contextmanager
def _told(to: str) -> Iterator[None]:
    """What the hub or the way to it refuses, as one sentence."""
    try:
        yield
    except HFValidationError as error:
        raise UserError(f"'{to}' is no name that the hub takes: {error}") from error
    except OfflineModeIsEnabled as error:
        raise UserError("HF_HUB_OFFLINE is set, so nothing can be uploaded: unset it.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        said = (error.server_message or error.response.reason_phrase).rstrip(".")
        remedy = (
            f"use a token that may write to {to.split('/')[0]}"
            if status in (401, 403, 404)
            else "try again later"
        )
        raise UserError(f"the Hugging Face hub refuses {to} ({status}: {said}): {remedy}.") from error
    except _NOT_REACHED as error:
        raise UserError(
            f"{constants.ENDPOINT} cannot be reached ({type(error).__name__}: {error}): is there a network? To use "
            "a mirror, set HF_ENDPOINT."
        ) from error
