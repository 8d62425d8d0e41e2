"""What is wrong with a user's files, told without a traceback by the command line."""


class InputError(ValueError):
    """A file, archive, table or checkpoint breaks a rule; the message names the place and the rule."""


class DivergenceError(RuntimeError):
    """A training run has left the numbers that it could come back from; its last checkpoint is good."""
