"""Every method of continual learning learns two tasks on a chunked Mamba with packed rows and merged tokens.

`python tests/soak/methods.py` tries every method with every part.
"""

import pytest
from product import learning, trial
from product.parts import every_part

NAMES = {"encoder": "BiMamba (chunk)", "layout": "packed", "merging": "r"}


@pytest.mark.usefixtures("unchecked")
def test_every_method_learns_two_tasks_with_merging_in_packed_rows():
    parts = every_part()
    named = {axis: next(part for part in parts[axis] if part.name == name) for axis, name in NAMES.items()}
    with trial.workplace() as files:
        for method in learning.methods():
            learning.attempt(method, {**trial.base(parts), **named}, learning.adapters_in(parts), files)
