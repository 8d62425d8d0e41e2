"""The `ringdist` command: training by Lightning's command line, and commands for trained models.

PyTorch and Lightning are imported only after a command is known, so that help and misspelt commands are fast.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

TRAINING = {  # subcommands of `adapters.training_cli.RingdistCLI` and their descriptions
    "fit": "Train a model, or resume a run with --ckpt_path.",
    "validate": "Evaluate a model on validation images.",
    "test": "Evaluate a model on test images.",
    "predict": "Call a model with the images of its data.",
}
COMMANDS = {  # functions of `adapters.commands`, with the first lines of their docstrings
    "sample": "Draw images from a trained model.",
    "hop": "Draw walks through the modes of a trained model's prior.",
    "fit-prior": "Fit a prior to the codes of a trained autoencoder, and save the model with it.",
    "evaluate": "Compare images drawn from a trained model with the test images of its data.",
}


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; an error in a user's files is reported in one line, with exit status 2.

    Args:
        args: the arguments; None: those of the process.

    Examples:
        >>> from adapters.cli import main
        >>> main(["fit", "--config", "adapters/configs/vae_digits.yaml"])  # doctest: +SKIP
    """
    given = list(sys.argv[1:] if args is None else args)
    if not given or given[0] in ("-h", "--help"):
        parser().print_help(sys.stdout if given else sys.stderr)
        raise SystemExit(0 if given else 2)
    if not given[0].startswith("-") and given[0] not in TRAINING | COMMANDS:
        fail(f"there is no command {given[0]!r}; commands are {', '.join(TRAINING | COMMANDS)}")
    run(given, args)


def parser() -> argparse.ArgumentParser:
    """The parser that prints the help; each command has its own parser."""
    listed = {"Training": TRAINING, "Trained models": COMMANDS}
    width = max(map(len, TRAINING | COMMANDS))
    parts = [
        "\n".join([f"{title}:", *(f"  {name:<{width}}  {line}" for name, line in commands.items())])
        for title, commands in listed.items()
    ]
    return argparse.ArgumentParser(
        prog="ringdist",
        usage="ringdist [-h] COMMAND [options]",
        description="Train generative models with learnable priors, and draw from them.",
        epilog="\n\n".join([*parts, "`ringdist COMMAND --help` lists the options of a command."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(given: list[str], args: Sequence[str] | None) -> None:
    """Run the command in `given`; `args` are the arguments of `main`, which Lightning reads itself."""
    from adapters.errors import DivergenceError, InputError

    try:
        if given[0] in COMMANDS:
            run_command(given)
        else:
            from adapters.training_cli import RingdistCLI

            RingdistCLI(args)
    except (DivergenceError, InputError) as error:
        fail(str(error))


def run_command(given: list[str]) -> None:
    """Run a command for trained models; its first argument may be the checkpoint, without --ckpt_path."""
    from jsonargparse import auto_cli

    from adapters import commands

    name, *options = given
    if options and not options[0].startswith("-"):
        options.insert(0, "--ckpt_path")
    auto_cli(getattr(commands, name.replace("-", "_")), args=options, as_positional=False, prog=f"ringdist {name}")


def fail(message: str) -> NoReturn:
    """Report an error in one line and exit with status 2."""
    print(f"ringdist: error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2) from None


if __name__ == "__main__":
    main()
