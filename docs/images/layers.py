"""Draw `layers.svg`: the packages of ringdist, each of which imports only from those below it.

Run as `python docs/images/layers.py`; needs nothing but the standard library.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

WIDTH, LEFT, RIGHT, TOP = 900, 64, 876, 58
BAR, GAP = 38, 7
INK, MUTED, PAPER = "#1f2937", "#6b7280", "#ffffff"
ABOVE, HELD, ASKED, BUILT = "#9ca3af", "#4f46e5", "#b45309", "#0f766e"

# From the top down: the colour of its group, the package, what it is for, and a name or two to look for in it.
LAYERS = [
    (ABOVE, "benchmarks", "one file a question", "speed, scaling, density"),
    (ABOVE, "adapters", "priors of generative models, in PyTorch", "TRIP, VAE, WGAN"),
    (HELD, "__init__", "the public names", "import ringdist as rd"),
    (HELD, "estimator", "a table in, a fitted ring out", "TensorRingDensity"),
    (HELD, "learning", "starting points, EM, gradients", "fit_em, initialize"),
    (HELD, "ordering, compare", "the sequence of columns; divergences", "tour, kl"),
    (HELD, "ring_mixture", "weighted sums of rings; files", "RingMixture, load"),
    (HELD, "ring", "what users hold", "TensorRing"),
    (ASKED, "interop", "other libraries, files", "to_tensornetwork, save"),
    (ASKED, "queries", "one function a quantity", "log_prob, sample, eliminate"),
    (ASKED, "engines", "products around the ring, kept in range", "log_mass, Linear, Log"),
    (BUILT, "network", "the frozen structure; rows as evidence", "Network, Evidence"),
    (BUILT, "cores", "the tensor at one column", "Core, DenseCore, CPCore"),
    (BUILT, "variables", "families of one-dimensional densities", "Variable, Family"),
    (BUILT, "backend", "NumPy, PyTorch and JAX as one", "namespace, take"),
]
MONOSPACE = "DejaVu Sans Mono, Menlo, Consolas, monospace"


def text(x: float, y: float, content: str, size: float, fill: str, anchor: str = "start", **more: str) -> str:
    """One line of text, vertically centred on y."""
    extra = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in more.items())
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" '
        f'dominant-baseline="central"{extra}>{escape(content)}</text>'
    )


def bar(i: int) -> list[str]:
    """Layer i: its name on a coloured field, its purpose, and names from it."""
    colour, name, purpose, names = LAYERS[i]
    y = TOP + i * (BAR + GAP)
    middle = y + BAR / 2
    return [
        f'<rect x="{LEFT}" y="{y}" width="{RIGHT - LEFT}" height="{BAR}" rx="8" fill="{PAPER}" stroke="{colour}"/>',
        f'<rect x="{LEFT}" y="{y}" width="180" height="{BAR}" rx="8" fill="{colour}"/>',
        text(LEFT + 16, middle, name, 15, PAPER, font_family=MONOSPACE, font_weight="600"),
        text(LEFT + 198, middle, purpose, 15, INK),
        text(RIGHT - 16, middle, names, 13, MUTED, "end", font_family=MONOSPACE),
    ]


def arrow() -> list[str]:
    """The direction of all imports, beside the layers."""
    x, y0, y1 = 34, TOP + 4, TOP + len(LAYERS) * (BAR + GAP) - GAP
    middle = (y0 + y1) / 2
    return [
        f'<path d="M{x} {y0} V{y1 - 8}" stroke="{INK}" stroke-width="2"/>',
        f'<path d="M{x - 6} {y1 - 12} h12 l-6 12 z" fill="{INK}"/>',
        text(x - 14, middle, "imports", 14, MUTED, "middle", transform=f"rotate(-90 {x - 14} {middle:.1f})"),
    ]


def legend() -> list[str]:
    """What the colours mean."""
    groups = [(ABOVE, "other packages"), (HELD, "what users hold"), (ASKED, "what is asked"), (BUILT, "what a ring is")]
    parts = []
    for i, (colour, label) in enumerate(groups):
        x = LEFT + 205 * i
        parts += [
            f'<rect x="{x}" y="22" width="14" height="14" rx="3" fill="{colour}"/>',
            text(x + 22, 29, label, 14, INK),
        ]
    return parts


def main() -> None:
    """Write `layers.svg` beside this file."""
    height = TOP + len(LAYERS) * (BAR + GAP) + 12
    parts = [f'<rect width="{WIDTH}" height="{height}" rx="14" fill="{PAPER}"/>', *legend(), *arrow()]
    for i in range(len(LAYERS)):
        parts += bar(i)
    svg = "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            'font-family="DejaVu Sans, Verdana, Helvetica, Arial, sans-serif">',
            "<title>The packages of ringdist, each of which imports only from those below it</title>",
            *parts,
            "</svg>",
        ]
    )
    Path(__file__).with_suffix(".svg").write_text(svg + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
