"""What is wrong with a user's files, told without a traceback by the command line."""


class InputError(ValueError):
    """A file, archive, table or checkpoint breaks a rule; the message names the place and the rule."""


class DivergenceError(RuntimeError):
    """A training run has left the numbers that it could come back from; its last checkpoint is good."""


def one_line(error: Exception) -> str:
    """An error's message, without the line breaks that parsers lay theirs out with."""
    return " ".join(str(error).split())
