"""What can go wrong that is not a fault of this program."""


class UserError(ValueError):
    """Bad input: the message says what was found, where, and what to do.

    The command line prints it as one paragraph and exits with 2; everything else that is raised is a fault of ours and
    keeps its traceback.
    """


class TrialFailed(RuntimeError):
    """A trial that did not end well; its row of the trials table says why. The command line exits with 1."""
