"""Sources in docstrings as text: the parser of Google-style docstrings would make a title of their first line."""

import re
from typing import Any

from griffe import Extension, Object

_LABEL = re.compile(r"^(Source|Differs): (.*(?:\n[ \t]+\S.*)*)", re.MULTILINE)


class PlainSources(Extension):
    """Turns ``Source: ...`` and ``Differs: ...`` with their indented lines into one paragraph each."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite a docstring before it is parsed."""
        if obj.docstring:
            obj.docstring.value = _LABEL.sub(_paragraph, obj.docstring.value)


def _paragraph(found: re.Match[str]) -> str:
    return f"**{found[1]}:** {' '.join(found[2].split())}\n"
