"""Images in a folder or a zip archive, with attributes in a CSV table."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import v2

from adapters.data.base import ImageData, Split, Stage
from adapters.errors import InputError

Mode = Literal["RGB", "L"]


class ImageFolder(ImageData):
    r"""A folder or zip archive of images, with an optional table of attributes.

    All files must be images, except hidden files and tables (.csv). One table may be named in `attributes`. Its first
    column is `image`, the images' file names. Each other column is an attribute: numbers, or names of categories, which
    get the codes 0, 1, ... in alphabetical order (`categories`). Empty cells are unknown, and so are the attributes of
    images without a row.

    Args:
        path: the folder or archive.
        attributes: the table: a path, or a name inside the folder or archive.
        size: side of the images after scaling and a central crop; None: all images have one size.
        mode: "RGB" or "L" (grey).
        test: number or share of the images that are held out for testing.
        options: of `ImageData`.

    Raises:
        InputError: when the data are loaded, if a file or the table breaks a rule.
        ValueError: as `ImageData`.

    Examples:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from adapters.data import ImageFolder
        >>> Path("images").mkdir()
        >>> for i in range(20):
        ...     Image.new("L", (8, 8), 10 * i).save(f"images/{i}.png")
        >>> rows = "".join(f"{i}.png,{'dark' if i < 10 else 'bright'}\n" for i in range(20))
        >>> _ = Path("images/table.csv").write_text("image,shade\n" + rows)
        >>> data = ImageFolder("images", "table.csv", mode="L")
        >>> data.summary()
        ['attributes: shade (bright = 0, dark = 1)']
    """

    def __init__(
        self,
        path: str | Path,
        attributes: str | Path | None = None,
        size: int | None = None,
        mode: Mode = "RGB",
        test: int | float = 0.1,
        **options: Any,
    ):
        super().__init__(**options)
        self.path, self.attributes, self.size, self.mode, self.test = Path(path), attributes, size, mode, test
        self.names: Sequence[str] = ()  # of the images, after loading
        self.unused: Sequence[str] = ()  # tables in the folder or archive that are not used

    def load(self) -> dict[Stage, Split]:
        """Training and test images, split with `split_seed`."""
        with open_files(self.path) as files:
            table = self._table_name(files)
            self.names = [name for name in files.names if name != table and not is_table(name)]
            self.unused = [name for name in files.names if name != table and is_table(name)]
            attributes = self._table(files, self.names)
            images = read_images(files, self.names, self.mode, self.size)
        test, train = self.cut(Split(images, attributes), self.test, "test")
        return {"train": train, "test": test}

    def summary(self) -> list[str]:
        """As in `ImageData`; in addition the table in use, if the folder holds others."""
        lines = super().summary()
        if self.unused:
            used = "no table is used" if self.attributes is None else f"the table is {self.attributes}"
            lines.append(f"{self.path}: {used}, not {', '.join(self.unused)}; the data's option `attributes` chooses")
        return lines

    def origin(self, stage: Stage, row: int) -> str:
        """The file of the image in a row of a split."""
        index = torch.arange(len(self.names))
        test, train = self.cut(Split(index, index), self.test, "test")  # the same splits as in `load` and `setup`
        image = {"test": test, **self._validation_split(train)}[stage].images[row]
        return f"{self.path}: {self.names[int(image)]}"

    def _table_name(self, files: Files) -> str | None:
        """The table's name in the folder or archive, given by name or by path; None if it is not there."""
        if self.attributes is None or str(self.attributes) in files.names:
            return None if self.attributes is None else str(self.attributes)
        root, table = self.path.resolve(), Path(self.attributes).resolve()
        return table.relative_to(root).as_posix() if table.is_relative_to(root) else None

    def _table(self, files: Files, images: Sequence[str]) -> Tensor:
        if self.attributes is None:
            return torch.empty(len(images), 0)
        name = str(self.attributes)
        if name not in files.names and not Path(name).is_file():
            raise InputError(f"{name}: there is no such table, neither in {self.path} nor as a path")
        content = files.read(name) if name in files.names else Path(name).read_bytes()
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{name}: a table must be in UTF-8 ({error})") from error
        self.attribute_names, self.categories, table = read_attributes(name, text, images)
        return table


def is_table(name: str) -> bool:
    """Whether a file's name is that of a table."""
    return name.lower().endswith(".csv")


class Files(NamedTuple):
    """The content of a folder or archive: sorted relative names without hidden files, and a function that reads one."""

    path: Path
    names: list[str]
    read: Callable[[str], bytes]


@contextmanager
def open_files(path: Path) -> Iterator[Files]:
    """A folder or zip archive; `InputError` if it is neither, is empty, or a file in it cannot be read."""
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
        yield _files(path, names, lambda name: (path / name).read_bytes())
        return
    if not path.exists():
        raise InputError(f"{path}: there is no such folder or archive")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path}: neither a folder nor a readable zip archive ({error})") from error
    with archive:
        yield _files(path, [name for name in archive.namelist() if not name.endswith("/")], archive.read)


def _files(path: Path, names: Sequence[str], read: Callable[[str], bytes]) -> Files:
    shown = sorted(name for name in names if not any(part.startswith((".", "__")) for part in name.split("/")))
    if not shown:
        raise InputError(f"{path}: there are no files in it")

    def content(name: str) -> bytes:
        try:
            return read(name)
        except Exception as error:  # zipfile and zlib raise many kinds for damaged or encrypted archives
            raise InputError(f"{path}: {name} cannot be read ({error})") from error

    return Files(path, shown, content)


def read_images(files: Files, names: Sequence[str], mode: Mode = "RGB", size: int | None = None) -> Tensor:
    """The named images, (n, C, H, W) in uint8; `InputError` names a file that is not an image or has another size."""
    resize = None if size is None else v2.Compose([v2.Resize(size, antialias=True), v2.CenterCrop(size)])
    images: np.ndarray | None = None
    for i, name in enumerate(names):
        image = _decoded(files, name)
        image = image if image.mode == mode else image.convert(mode)
        array = np.asarray(image if resize is None else resize(image))
        pixels = array.reshape(*array.shape[:2], -1).transpose(2, 0, 1)
        if images is None:
            images = np.empty((len(names), *pixels.shape), dtype=np.uint8)
        if pixels.shape != images.shape[1:]:
            first, other = images.shape[2:], pixels.shape[1:]
            raise InputError(
                f"{files.path}: images must have one size, or `size` must be given: "
                f"{names[0]} is {first[0]}x{first[1]}, {name} is {other[0]}x{other[1]}"
            )
        images[i] = pixels
    if images is None:
        raise InputError(f"{files.path}: there are no images in it")
    return torch.from_numpy(images)


def _decoded(files: Files, name: str) -> Image.Image:
    content = io.BytesIO(files.read(name))
    try:
        image = Image.open(content)
        image.load()
    except UnidentifiedImageError as error:
        raise InputError(f"{files.path}: {name} is not an image") from error
    except Exception as error:  # decoders raise errors of many kinds for damaged files
        raise InputError(f"{files.path}: {name} cannot be read ({error})") from error
    return image


def read_class_folders(path: Path, mode: Mode = "RGB") -> tuple[list[str], dict[Stage, Split]]:
    """Classes in alphabetical order, and images laid out train|test/CLASS/NAME; the attribute is the class."""
    with open_files(path) as files:
        for name in files.names:
            parts = name.split("/")
            if len(parts) != 3 or parts[0] not in ("train", "test"):
                raise InputError(f"{path}: images must be laid out as train|test/CLASS/NAME, found {name}")
        classes = sorted({name.split("/")[1] for name in files.names})
        number = {name: float(i) for i, name in enumerate(classes)}
        splits: dict[Stage, Split] = {}
        stages: tuple[Stage, ...] = ("train", "test")
        for stage in stages:
            names = [name for name in files.names if name.startswith(f"{stage}/")]
            labels = torch.tensor([[number[name.split("/")[1]]] for name in names])
            splits[stage] = Split(read_images(files, names, mode), labels)
    return classes, splits


def read_attributes(
    source: str, text: str, images: Sequence[str]
) -> tuple[list[str], dict[str, tuple[str, ...]], Tensor]:
    """Names of the attributes of the images, the categories of some, and values (n, a), NaN where unknown.

    A column without any number contains names of categories, whose values are their positions in alphabetical order.

    Args:
        source: the table's name, for messages.
        text: the table.
        images: paths of the images; rows name them by path or by file name.

    Raises:
        InputError: naming row and rule if there is no column `image`, a row has too few or too many cells, a value is
            not a number in a column of numbers, an image is not there, ambiguous or listed twice.
    """
    rows = _rows(source, text)
    _, header = next(rows, (0, []))
    if not header or header[0] != "image" or len(set(header)) < len(header):
        raise InputError(
            f"{source}: the first row must be image,ATTRIBUTE,... with different names, found {','.join(header)}"
        )
    position = _positions(images)
    cells: list[list[tuple[int, int, str]]] = [[] for _ in header[1:]]  # of each column: image, row and text
    seen: dict[int, int] = {}
    for number, row in rows:
        place = f"{source}, row {number}"
        if len(row) != len(header):
            raise InputError(f"{place}: a row must have {len(header)} cells, found {len(row)}")
        i = position.get(row[0])
        if i is None:
            raise InputError(f"{place}: each row must name an image, there is none called {row[0]!r}")
        if i < 0:
            raise InputError(f"{place}: several images are called {row[0]!r}; rows must give their paths")
        if i in seen:
            raise InputError(f"{place}: an image must have one row, {row[0]!r} has been in row {seen[i]} already")
        seen[i] = number
        for column, cell in zip(cells, row[1:], strict=True):
            column.append((i, number, cell.strip()))
    values = torch.full((len(images), len(header) - 1), torch.nan)
    categories: dict[str, tuple[str, ...]] = {}
    for j, (name, column) in enumerate(zip(header[1:], cells, strict=True)):
        if names := _category_names([cell for _, _, cell in column]):
            categories[name] = names
        for i, number, cell in column:
            values[i, j] = _value(f"{source}, row {number}", name, cell, names)
    return header[1:], categories, values


def _category_names(cells: Sequence[str]) -> tuple[str, ...]:
    """The different names in a column, sorted; empty if any cell is a number."""
    known = {cell for cell in cells if not _is_unknown(cell)}
    return () if any(_is_number(cell) for cell in known) else tuple(sorted(known))


def _is_unknown(cell: str) -> bool:
    return not cell or cell.lower() == "nan"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _value(place: str, column: str, cell: str, names: Sequence[str]) -> float:
    """A number, or the code of a category; NaN for an empty cell."""
    if names and not _is_unknown(cell):
        return float(names.index(cell))
    return _number(place, column, cell)


def _rows(source: str, text: str) -> Iterator[tuple[int, list[str]]]:
    """The last line number and the cells of each row of a table, without blank lines."""
    rows = csv.reader(io.StringIO(text))
    try:
        for row in rows:
            if len(row) > 1 or "".join(row).strip():
                yield rows.line_num, row
    except csv.Error as error:
        raise InputError(f"{source}, row {rows.line_num}: {error}") from error


def _positions(images: Sequence[str]) -> dict[str, int]:
    """The index of each image by path and by file name; −1 for a file name that several images share."""
    position: dict[str, int] = {}
    for i, image in enumerate(images):
        name = PurePosixPath(image).name
        position[name] = -1 if name in position else i
    return position | {image: i for i, image in enumerate(images)}


def _number(place: str, column: str, cell: str) -> float:
    """The value of a cell, NaN for an empty one."""
    try:
        value = float(cell) if cell.strip() else float("nan")
    except ValueError as error:
        raise InputError(f"{place}: {column} must be a number or empty, found {cell!r}") from error
    if np.isinf(value):
        raise InputError(f"{place}: {column} must be finite, found {cell!r}")
    return value
