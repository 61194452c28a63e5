"""YAML whose values stay texts: what a text means is for the type of its field to say, and not for its look.

By YAML's own rules `no` is false, `3` a number and `null` nothing, wherever they stand, so that no class can be called
so. Here `[no, 3, null]` are three names; where a field is a number, the reader of the field makes one of the text.
"""

import re
from typing import Any

import yaml


class _Texts(yaml.SafeLoader):
    """Mappings, lists, texts, and nothing at all (`key:`). Not the loader in C, which refuses what JSON escapes."""

    yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile("<<"))]}  # noqa: RUF012 - as PyYAML has it


def _text(loader, node):
    """A text; None where nothing or `~` is written. The halves that JSON makes of a sign beyond 16 bits are joined."""
    if node.value in ("", "~") and node.style is None:
        return None
    return node.value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


_Texts.add_constructor("tag:yaml.org,2002:str", _text)


def load_texts(text: str) -> Any:
    """Read YAML or JSON: dictionaries and lists of str, with None where nothing is written, or ~.

    Raises: yaml.YAMLError if it is neither.
    """
    return yaml.load(text, Loader=_Texts)
