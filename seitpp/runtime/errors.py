"""The error that a user can mend: one line that says what is wrong, where, and what to do."""


class UserError(Exception):
    """Bad input: shown as one line and exit code 1; `--debug` shows the traceback."""


class Rehearsed(Exception):
    """A dry run has said what there is to say; nothing was written, and the exit code is 0."""


class Interrupted(Exception):
    """Ctrl-C or SIGTERM came; the state is saved.

    Args:
        signal_number: SIGINT or SIGTERM.
        message: where it stopped.
    """

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.signal = signal_number
