"""Pushing asks for a login first, makes a private repository, and says in one line what went wrong."""

import pytest

from ssl_audio.errors import RecipeError
from ssl_audio.experiments import hub


class Api:
    """Stands for the hub's client."""

    calls: list = []  # noqa: RUF012
    logged_in = True

    def whoami(self):
        if not self.logged_in:
            raise OSError("no token")

    def create_repo(self, repository, **options):
        self.calls.append((repository, options))
        return f"hub/{repository}"

    def upload_folder(self, **options):
        self.calls.append(options)


def test_only_for_whoever_is_logged_in(tmp_path, monkeypatch):
    client = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(client, "HfApi", Api)
    assert hub.push(hub.client("me/mine"), tmp_path, "me/mine") == "hub/me/mine"
    assert Api.calls == [
        ("me/mine", {"private": True, "exist_ok": True}),
        {"repo_id": "me/mine", "folder_path": str(tmp_path)},
    ]
    monkeypatch.setattr(Api, "logged_in", False)
    with pytest.raises(RecipeError, match="nobody is logged in"):
        hub.client("me/mine")
    with pytest.raises(RecipeError, match="expected owner/name"):
        hub.client("../mine")
