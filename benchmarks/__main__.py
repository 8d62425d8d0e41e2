"""Find the benchmark that was asked for and run it."""

import argparse
import ast
import importlib
from pathlib import Path


def benchmarks() -> dict[str, str]:
    """Every module or package of this folder that answers a question, and the question (found without an import)."""
    folder, found = Path(__file__).parent, {}
    modules = {path.stem: path for path in folder.glob("[!_]*.py")}
    packages = {path.parent.name: path for path in folder.glob("[!_]*/__init__.py")}
    for name, path in sorted((modules | packages).items()):
        tree = ast.parse(path.read_text())
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            found[name] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def main() -> None:
    questions = benchmarks()
    listing = "\n".join(f"  {name:<10} {question}" for name, question in questions.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        usage="%(prog)s NAME [options]",
        epilog=f"benchmarks:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=list(questions), metavar="NAME", help="one of the benchmarks below")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="NAME --help lists them")
    chosen = parser.parse_args()

    module = importlib.import_module(f"benchmarks.{chosen.name}")
    options = argparse.ArgumentParser(prog=f"{parser.prog} {chosen.name}", description=module.__doc__)
    module.add_arguments(options)
    module.main(options.parse_args(chosen.options))


if __name__ == "__main__":
    main()
