"""Whole verbs run as they do for a user: without the checks of shapes, which the tests of their parts make."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _as_for_a_user(unchecked_module) -> None:
    """A third of the time of a whole run."""
