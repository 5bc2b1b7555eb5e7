"""The one exception that means: the user can put this right."""


class UserError(ValueError):
    """Bad input: the message says what was found, where, and what to do.

    The command line prints it as one paragraph and exits with 2; everything else that is raised is a fault of ours and
    keeps its traceback.
    """
