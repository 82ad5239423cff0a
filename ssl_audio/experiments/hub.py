"""Pushing an exported folder to the hub of Hugging Face: only when asked, and only for whoever is logged in."""

import re
from pathlib import Path
from typing import Any

from ssl_audio.errors import RecipeError, SslAudioError

_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def client(repository: str) -> Any:
    """The hub's client, if a folder can be pushed there by whoever runs this.

    Args:
        repository: As `owner/name`.

    Raises:
        RecipeError: if the name is none, the client is not installed, or nobody is logged in.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise RecipeError(f"--push {repository}: is no repository; expected owner/name")
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
    except ImportError as error:
        raise RecipeError(
            "--push needs huggingface_hub; install it with pip install 'ssl_audio[huggingface]'"
        ) from error
    api = HfApi()
    try:
        api.whoami()
    except (LocalTokenNotFoundError, HfHubHTTPError, OSError) as error:
        raise RecipeError(f"--push {repository}: nobody is logged in to the hub; run `hf auth login` first") from error
    return api


def push(api: Any, folder: Path, repository: str) -> str:
    """Upload a folder; a repository that is made for it is private. Returns its address.

    Raises:
        SslAudioError: if the hub refuses.
    """
    from huggingface_hub.errors import HfHubHTTPError

    try:
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(folder))
    except (HfHubHTTPError, OSError) as error:
        line = " ".join(str(error).split())[:200]
        raise SslAudioError(
            f"--push {repository}: the hub refused ({line}); {folder} is complete, try later"
        ) from error
    return str(address)
