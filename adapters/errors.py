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


class DivergenceError(RuntimeError):
    """A loss or gradient of a training run is too large or not finite; the last checkpoint is from before that."""


def one_line(error: Exception) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())
