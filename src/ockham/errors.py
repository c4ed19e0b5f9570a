"""What a user can mend."""


class UserError(ValueError):
    """A mistake in a command, a setting, a data set or a folder; the message names it and what to change.

    It ends a program with exit code 2 and one screen. Any other exception is a fault of the program or of the machine, also
    a ValueError of a library: exit code 1, with its traceback in the log.
    """
