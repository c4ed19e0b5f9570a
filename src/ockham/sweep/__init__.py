"""What a sweep is: its jobs, its folder, how it is executed, continued and summed up. No torch here."""


class SweepFailedError(RuntimeError):
    """Jobs of a sweep failed; the message lists them."""
