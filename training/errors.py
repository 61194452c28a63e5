"""The error that a user can mend: one line that says what is wrong, where, and what to do."""


class UserError(Exception):
    """Bad input: shown as one line and exit code 1; `--debug` shows the traceback."""
