"""Draw `ring.svg`: a ring of six cores, two of its variables open, two conditioned on, two marginalised.

`ring-narrow.svg`, for phones, has the legend below the ring instead of on its right.

Run as `python docs/images/ring.py`; needs nothing but the standard library.
"""

from __future__ import annotations

import math
from html import escape
from pathlib import Path

WIDE, NARROW = (900, 460), (500, 740)
CENTRE, RADIUS, LEG = (250, 232), 112, 72
INK, MUTED, PAPER = "#1f2937", "#6b7280", "#ffffff"
OPEN, GIVEN, SUMMED = "#4f46e5", "#b45309", "#9ca3af"

# One entry a variable, clockwise from the top: its state, what its leg ends in, the rank of its left bond.
VARIABLES = [
    ("open", "smoker", 3),
    ("given", "age = 52", 5),
    ("summed", "Σ", 4),
    ("open", "glucose", 6),
    ("given", "site = 3", 5),
    ("summed", "Σ", 2),
]
COLOURS = {"open": OPEN, "given": GIVEN, "summed": SUMMED}


def point(angle: float, radius: float) -> tuple[float, float]:
    """Where a ray from the ring's centre, `angle` degrees clockwise from the top, meets a circle."""
    turn = math.radians(angle)
    return CENTRE[0] + radius * math.sin(turn), CENTRE[1] - radius * math.cos(turn)


def text(x: float, y: float, content: str, size: float, fill: str = INK, anchor: str = "middle", **more: str) -> str:
    """One line of text, vertically centred on y."""
    extra = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in more.items())
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" '
        f'dominant-baseline="central"{extra}>{escape(content)}</text>'
    )


def symbol(name: str, index: str) -> str:
    """A letter with a subscript, to be put inside a text element."""
    return f'{name}<tspan font-size="70%" dy="0.35em">{index}</tspan>'


def bond(j: int) -> list[str]:
    """The bond on the left of core j, as wide as its rank, and its name."""
    rank = VARIABLES[j][2]
    (x0, y0), (x1, y1) = point(60 * (j - 1), RADIUS), point(60 * j, RADIUS)
    label_x, label_y = point(60 * j - 30, RADIUS - 40)
    name = text(label_x, label_y, "@", 14, MUTED, font_style="italic").replace("@", symbol("m", str(j + 1)))
    return [
        f'<path d="M{x0:.1f} {y0:.1f} A{RADIUS} {RADIUS} 0 0 1 {x1:.1f} {y1:.1f}" fill="none" '
        f'stroke="{INK}" stroke-width="{1.2 * rank:.1f}"/>',
        name,
    ]


def cut() -> list[str]:
    """The mark where the thinnest bond is cut."""
    j = min(range(len(VARIABLES)), key=lambda i: VARIABLES[i][2])
    (x0, y0), (x1, y1) = point(60 * j - 30, RADIUS - 18), point(60 * j - 30, RADIUS + 26)
    label_x, label_y = point(60 * j - 30, RADIUS + 38)
    return [
        f'<path d="M{x0:.1f} {y0:.1f} L{x1:.1f} {y1:.1f}" stroke="{INK}" stroke-width="1.6" stroke-dasharray="4 3"/>',
        text(label_x + 6, label_y, "cut here", 13, MUTED, "end"),
    ]


def variable(j: int) -> list[str]:
    """Core j, its leg, and what the leg ends in."""
    state, label, _ = VARIABLES[j]
    colour = COLOURS[state]
    disc = MUTED if state == "summed" else colour
    (cx, cy), (lx, ly) = point(60 * j, RADIUS), point(60 * j, RADIUS + LEG)
    dash = ' stroke-dasharray="5 4"' if state == "summed" else ""
    half = 18 if state == "summed" else 44
    core = text(cx, cy, "@", 15, PAPER, font_style="italic").replace("@", symbol("Q", str(j + 1)))
    return [
        f'<path d="M{cx:.1f} {cy:.1f} L{lx:.1f} {ly:.1f}" stroke="{colour}" stroke-width="2.5"{dash}/>',
        f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="22" fill="{disc}" stroke="{PAPER}" stroke-width="2"/>',
        core,
        f'<rect x="{lx - half:.1f}" y="{ly - 16:.1f}" width="{2 * half}" height="32" rx="8" '
        f'fill="{colour if state == "given" else PAPER}" stroke="{colour}" stroke-width="2"{dash}/>',
        text(lx, ly, label, 14, PAPER if state == "given" else INK if state == "open" else MUTED),
    ]


def legend(x: int, top: int, step: int) -> list[str]:
    """What the three kinds of leg stand for, and what is then computed."""
    entries = [
        (GIVEN, "conditioned on", "the core becomes the matrix", "A(x) = Σₛ Q[s] p(x | s)"),
        (SUMMED, "marginalised", "the core becomes the matrix", "Q̃ = Σₛ Q[s]"),
        (OPEN, "queried", "all other cores multiply to a matrix E:", "p(s | given) ∝ Tr(Q[s] E)"),
    ]
    parts = []
    for i, (colour, head, line, formula) in enumerate(entries):
        y = top + step * i
        parts += [
            f'<rect x="{x}" y="{y - 14}" width="8" height="82" rx="4" fill="{colour}"/>',
            text(x + 24, y, head, 18, INK, "start", font_weight="600"),
            text(x + 24, y + 28, line, 15, MUTED, "start"),
            text(x + 24, y + 56, formula, 17, INK, "start", font_style="italic"),
        ]
    return parts


def picture(width: int, height: int, key: list[str]) -> str:
    """The ring and its legend."""
    parts = [f'<rect width="{width}" height="{height}" rx="14" fill="{PAPER}"/>']
    for j in range(len(VARIABLES)):
        parts += bond(j)
    parts += cut()
    for j in range(len(VARIABLES)):
        parts += variable(j)
    title = "A tensor ring: cores joined by bonds; two variables conditioned on, two marginalised, two queried"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            'font-family="DejaVu Sans, Verdana, Helvetica, Arial, sans-serif">',
            f"<title>{title}</title>",
            *parts,
            *key,
            "</svg>\n",
        ]
    )


def main() -> None:
    """Write both pictures beside this file."""
    folder = Path(__file__).parent
    note = "Exact, and the joint table is never formed."
    beside = [*legend(510, 92, 112), text(510, 428, note, 15, MUTED, "start")]
    below = legend(48, 458, 92)
    (folder / "ring.svg").write_text(picture(*WIDE, beside), encoding="utf-8")
    (folder / "ring-narrow.svg").write_text(picture(*NARROW, below), encoding="utf-8")


if __name__ == "__main__":
    main()
