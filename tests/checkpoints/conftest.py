"""Files are written and read as they are for a user: without the checks of shapes, which tests of models make."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _as_for_a_user(unchecked_module) -> None:
    """Half of the time of an export or an import."""
