"""Errors that the command line reports in one line, without a traceback."""


class InputError(ValueError):
    """A file, archive, table or checkpoint breaks a rule; the message names the place and the rule.

    Examples:
        >>> from adapters.checkpoints import load_model
        >>> load_model("missing.ckpt")
        Traceback (most recent call last):
            ...
        adapters.errors.InputError: missing.ckpt: there is no such checkpoint
    """


class NotBuiltError(InputError):
    """The settings of a run do not build one of its parts, for a reason that its class gave.

    Args:
        place: the file and the part.
        reason: the message of the error that the class raised.

    Examples:
        >>> from adapters.errors import NotBuiltError
        >>> str(NotBuiltError("run.ckpt: the run's model cannot be built", "ranks must be at least 1, found 0"))
        "run.ckpt: the run's model cannot be built (ranks must be at least 1, found 0)"
    """

    def __init__(self, place: str, reason: str):
        super().__init__(f"{place} ({reason})")
        self.reason = reason


class DivergenceError(RuntimeError):
    """A loss or gradient of a training run is too large or not finite; the last checkpoint is from before that."""


def one_line(error: Exception) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())
