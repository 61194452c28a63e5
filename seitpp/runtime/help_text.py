"""What `--help` says of a flag: its default stands there as it is typed."""

import json
from argparse import Action

from jsonargparse import DefaultHelpFormatter


class HelpText(DefaultHelpFormatter):
    """jsonargparse's help, with defaults that the parser takes: its own shows Python's `('a', 'b')` and `False`."""

    def _get_help_string(self, action: Action) -> str:
        return super()._get_help_string(action).replace("%(default)s", as_typed(action.default))


def as_typed(value: object) -> str:
    """A value as one types it behind its flag: `[a, b]`, `true`, `null`."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(as_typed, value))}]"
    return value if isinstance(value, str) else json.dumps(value, default=str)
