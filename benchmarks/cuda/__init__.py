"""Is everything right on a GPU, how fast is it there, and how far does training come in a few minutes?

One command for a machine that is at hand for minutes. Parts in order of worth, each with its share of the time:
correctness, speed beside the official code, limits (profile, precision, scaling), training of full size. Whatever has
been measured is in OUT at once; a second run with the same OUT goes on where the first stopped.
"""

import argparse
import tempfile
from pathlib import Path

from ..measure import default_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=8.0, help="after which all has ended, start included")
    parser.add_argument("--data", type=Path, help="folder with the data sets, packed or not; without it no training")
    parser.add_argument("--reference", type=Path, metavar="PATH", help="a checkout of insilicomedicine/TRIP")
    parser.add_argument("--out", type=Path, help="folder of results: at most 8 files, each below 16 MB")
    parser.add_argument("--device", choices=["cpu", "cuda"], default=default_device())
    parser.add_argument("--dry-run", action="store_true", help="the same path at toy sizes")
    parser.add_argument("--skip-suite", action="store_true", help="leave out the tests of the repository")
    parser.add_argument(
        "--scratch",
        type=Path,
        default=Path(tempfile.gettempdir()) / "ringdist-cuda",
        help="folder for unpacked data and whole checkpoints",
    )
    other = parser.add_argument_group("instead of measuring")
    other.add_argument("--pack", type=Path, metavar="DIR", help="write the data sets of --data into DIR, smaller")
    other.add_argument("--publish", type=Path, metavar="OUT", help="write the pages of the results in OUT")
    other.add_argument("--pages", type=Path, default=Path("docs/results"), help="where --publish writes them")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)


def main(args: argparse.Namespace) -> None:
    if args.pack:
        from .packing import pack_all

        pack_all(args.data or Path("../shared/data"), args.pack)
    elif args.publish:
        from .publish import publish

        publish(args.publish, args.pages)
    elif args.out is None:
        raise SystemExit("--out: a folder for the results is needed")
    elif args.worker:
        from .launch import options
        from .worker import run

        number, end = args.worker
        raise SystemExit(run(options(args, float(end), int(number)), args.minutes))
    else:
        from .launch import launch

        launch(args)
