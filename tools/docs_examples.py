"""Examples in docstrings, shown as code: a paragraph that begins with `>>>` is a session, not a quotation."""

from typing import Any

from griffe import Extension, Object


def fenced(text: str) -> str:
    """The text with every paragraph that begins with `>>>` in a fence.

    >>> fenced("Adds.\\n\\n>>> 1 + 1\\n2")
    'Adds.\\n\\n```pycon\\n>>> 1 + 1\\n2\\n```'
    """
    paragraphs = text.split("\n\n")
    return "\n\n".join(f"```pycon\n{one}\n```" if one.startswith(">>>") else one for one in paragraphs)


class FencedExamples(Extension):
    """Called by griffe, which reads the sources for the site."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
