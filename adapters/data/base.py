"""`ImageData`, the base class of data modules; a data set implements one method, which loads its images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from adapters.errors import InputError
from adapters.seeding import derived_seed, epoch_of, run_seed

Binarization = Literal["static", "dynamic"]
Stage = Literal["train", "val", "test"]


class Split(NamedTuple):
    """Rows of a data set: images (n, C, H, W) in uint8, attributes (n, a) in float32, NaN where unknown.

    Examples:
        >>> import torch
        >>> from adapters.data import Split
        >>> split = Split(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.arange(5.0)[:, None])
        >>> split.rows(torch.tensor([3, 1])).attributes.tolist()
        [[3.0], [1.0]]
    """

    images: Tensor
    attributes: Tensor

    def rows(self, index: Tensor) -> Split:
        """The rows with these indices."""
        return Split(self.images[index], self.attributes[index])


class ImageData(LightningDataModule):
    """Images in memory as bytes, which batches contain as floats in [0, 1], together with their attributes.

    A subclass implements `load`. All random numbers are functions of the run's seed, the epoch and the step, and the
    loaders store their position in checkpoints. A run that is resumed in the middle of an epoch therefore continues
    with the same batches as an uninterrupted one.

    Args:
        batch_size: of each process.
        validation: number or share of the training images that are held out for validation; ignored if the data set has
            its own validation images.
        binarization: None: grey levels; "static": each pixel is sampled once, with its grey level as the probability of
            a 1 and a fixed seed; "dynamic": training images are sampled in every epoch, the others statically.
        split_seed: seed of the validation split, of static binarisation and of the hidden entries, independent of the
            run's seed.
        missing: share of the attribute entries of training images that are hidden (NaN), independently of each other.
        keep: names of the attributes in batches, in this order; None: all.

    Raises:
        ValueError: if an argument is out of its range, or an attribute to keep is unknown.

    Examples:
        >>> import torch
        >>> from adapters.data import ImageData, Split
        >>> class Noise(ImageData):
        ...     attribute_names = ("kind",)
        ...     def load(self):
        ...         images = torch.randint(256, (100, 1, 8, 8), dtype=torch.uint8)
        ...         test, train = self.cut(Split(images, torch.zeros(100, 1)), 0.1, "test")
        ...         return {"train": train, "test": test}
        >>> data = Noise(batch_size=32, validation=10)
        >>> data.image_shape, {stage: len(split.images) for stage, split in data.splits.items()}
        ((1, 8, 8), {'train': 80, 'test': 10, 'val': 10})
    """

    levels = 256
    attribute_names: Sequence[str] = ()
    categories: Mapping[str, Sequence[str]] = MappingProxyType({})  # names of the values 0, 1, ... of some attributes

    def __init__(
        self,
        batch_size: int = 128,
        validation: int | float = 0.1,
        binarization: Binarization | None = None,
        split_seed: int = 0,
        missing: float = 0.0,
        keep: Sequence[str] | None = None,
    ):
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, found {batch_size}")
        if binarization is not None and binarization not in get_args(Binarization):
            raise ValueError(
                f"binarization must be None or one of {', '.join(get_args(Binarization))}, found {binarization!r}"
            )
        if not 0 <= missing <= 1:
            raise ValueError(f"missing must be a share in [0, 1], found {missing}")
        self.batch_size, self.validation = batch_size, validation
        self.binarization, self.split_seed = binarization, split_seed
        if isinstance(keep, str):
            raise ValueError(f"keep must be a list of names, found {keep!r}")
        if keep is not None and len(set(keep)) < len(keep):
            raise ValueError(f"keep must name each attribute once, found {', '.join(keep)}")
        self.missing, self.keep = missing, keep
        self.splits: dict[Stage, Split] = {}

    @abstractmethod
    def load(self) -> dict[Stage, Split]:
        """Read the data set: "train", "test" and, if it has its own validation images, "val"."""

    # ------------------------------------------------------------------------------------------ Lightning's hooks

    def setup(self, stage: str | None = None) -> None:
        """Read, split, binarise and hide attributes, once."""
        if self.splits:
            return
        splits: dict[Stage, Split] = self.load()
        if "val" not in splits:
            splits |= self._validation_split(splits["train"])
        if self.binarization is not None:
            fixed = splits if self.binarization == "static" else splits.keys() - {"train"}
            splits |= {name: self._binarized_once(splits[name]) for name in sorted(fixed)}
        if self.keep is not None:
            splits = self._kept(splits, self.keep)
        if self.missing:
            splits |= {"train": self._partly_hidden(splits["train"])}
        self.splits = splits

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled batches."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> ResumableLoader:
        """Batches in order."""
        return self._loader("val", shuffle=False)

    def test_dataloader(self) -> ResumableLoader:
        """Batches in order."""
        return self._loader("test", shuffle=False)

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Convert bytes to floats, on the device of the model."""
        images, attributes = batch
        place = self._place() if self._draws() and self.trainer.training else None
        # Lightning has converted floats to the run's precision before, but not bytes.
        return self._scaled(images, place).to(attributes.dtype), attributes

    # --------------------------------------------------------------------------------------------------- for users

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        self.setup()
        channels, height, width = self.splits["train"].images.shape[1:]
        return channels, height, width

    def training_rows(self, n: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of images as floats and their attributes, from n different random training rows.

        Args:
            n: number of rows, at most all.
            seed: of the choice and order of the rows, and of dynamic binarisation.
        """
        self.setup()
        order = torch.randperm(len(self.splits["train"].images), generator=torch.Generator().manual_seed(seed))
        yield from self._batches("train", order[:n], seed)

    def training_images(self, n: int, seed: int) -> Iterator[Tensor]:
        """The images of `training_rows`."""
        return (images for images, _ in self.training_rows(n, seed))

    def rows(self, stage: Stage) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of a split in order: images as floats and their attributes."""
        self.setup()
        yield from self._batches(stage, torch.arange(len(self.splits[stage].images)), 0)

    def examples(self, n: int, stage: Stage = "val") -> Tensor:
        """The first n images of a split as floats, binarised as in the first batch of `rows`."""
        self.setup()
        return self._scaled(self.splits[stage].images[:n], (0, 0) if stage == "train" and self._draws() else None)

    def summary(self) -> list[str]:
        """Lines that describe the data: the attributes, and the names of their values."""
        self.setup()
        named = (
            f"{name} ({listed(self.categories[name])})" if name in self.categories else name
            for name in self.attribute_names
        )
        return [f"attributes: {', '.join(named) or '(none)'}"]

    def origin(self, stage: Stage, row: int) -> str:
        """A name for the image in a row of a split, for messages."""
        return f"image {row} of {stage}"

    # -------------------------------------------------------------------------------------------- implementation

    def _loader(self, stage: Stage, shuffle: bool) -> ResumableLoader:
        trainer = self.trainer
        processes, rank = (trainer.world_size, trainer.global_rank) if trainer is not None else (1, 0)
        rows = _Rows(self.splits[stage])
        sampler: DistributedSampler[Any] = DistributedSampler(rows, processes, rank, shuffle=shuffle, seed=run_seed())
        return ResumableLoader(rows, batch_size=self.batch_size, sampler=sampler, collate_fn=tuple)

    def _validation_split(self, train: Split) -> dict[Stage, Split]:
        held_out, rest = self.cut(train, self.validation, "validation")
        return {"train": rest, "val": held_out}

    def cut(self, split: Split, part: int | float, name: str) -> tuple[Split, Split]:
        """Rows held out, chosen by the seed of the split, and the rest.

        Args:
            split: all rows.
            part: how many are held out, or which share of them.
            name: of that number, for the message.

        Raises:
            ValueError: if either part would be empty.
        """
        total = len(split.images)
        held_out = round(part * total) if part < 1 else int(part)
        if not 0 < held_out < total:
            raise ValueError(f"{name} must leave some of the {total} images on either side, found {part}")
        order = torch.randperm(total, generator=torch.Generator().manual_seed(self.split_seed))
        return split.rows(order[:held_out].sort().values), split.rows(order[held_out:].sort().values)

    def _binarized_once(self, split: Split) -> Split:
        generator = torch.Generator().manual_seed(self.split_seed)
        parts = [  # in parts, because the random numbers take several times the memory of the images
            (part > torch.rand(part.shape, generator=generator) * (self.levels - 1)).to(torch.uint8)
            for part in split.images.split(4096)
        ]
        return split._replace(images=torch.cat(parts).mul_(self.levels - 1))

    def _kept(self, splits: dict[Stage, Split], names: Sequence[str]) -> dict[Stage, Split]:
        known = list(self.attribute_names)
        if unknown := [name for name in names if name not in known]:
            raise InputError(f"keep: attributes are {', '.join(known) or '(none)'}, found {', '.join(unknown)}")
        columns, self.attribute_names = [known.index(name) for name in names], tuple(names)
        return {stage: split._replace(attributes=split.attributes[:, columns]) for stage, split in splits.items()}

    def _partly_hidden(self, split: Split) -> Split:
        generator = torch.Generator().manual_seed(self.split_seed)
        hidden = torch.rand(split.attributes.shape, generator=generator) < self.missing
        return split._replace(attributes=split.attributes.masked_fill(hidden, torch.nan))

    def _batches(self, stage: Stage, order: Tensor, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows of a split as floats and attributes; the seed is that of dynamic binarisation."""
        draws = stage == "train" and self._draws()
        for i, index in enumerate(order.split(self.batch_size)):
            images, attributes = self.splits[stage].rows(index)
            yield self._scaled(images, (seed, i) if draws else None), attributes

    def _place(self) -> tuple[int, int, int]:
        """Process, epoch and batch; Lightning counts a batch after its transfer."""
        return self.trainer.global_rank, epoch_of(self.trainer), self.trainer.fit_loop.batch_idx + 1

    def _draws(self) -> bool:
        return self.binarization == "dynamic"

    def _scaled(self, images: Tensor, place: tuple[int, ...] | None) -> Tensor:
        """Floats in [0, 1]; with a place in the run, binary samples with these probabilities."""
        scaled = images.float() / (self.levels - 1)
        if place is None:
            return scaled
        generator = torch.Generator(images.device).manual_seed(derived_seed(*place))
        return torch.bernoulli(scaled, generator=generator)


def listed(values: Sequence[str], most: int = 12) -> str:
    """The names of the values 0, 1, ... in one line, abbreviated if there are more than `most`."""
    shown = ", ".join(f"{name} = {i}" for i, name in enumerate(values[:most]))
    return shown if len(values) <= most else f"{shown}, ... {values[-1]} = {len(values) - 1}"


def value_name(value: float, categories: Sequence[str]) -> str:
    """The name of a category, or the number if it has no name."""
    return categories[int(value)] if categories and 0 <= value < len(categories) else f"{value:g}"


class ResumableLoader(DataLoader[Any]):
    """A loader that resumes in the middle of an epoch: Lightning saves its state in checkpoints and restores it."""

    _position = 0  # batches returned in this epoch
    _resumed: dict[str, int] | None = None  # the state of an interrupted run, until the next iteration

    def __iter__(self) -> Iterator[Any]:
        """The batches of one epoch, without those returned before the interruption."""
        # This runs at the first `next`, when Lightning has set the sampler's epoch. After an interruption at the end of
        # an epoch the next one is complete, also if Lightning limits the number of batches.
        state, self._resumed = self._resumed, None
        skip = state["position"] if state is not None and state["epoch"] == self._epoch else 0
        for i, batch in enumerate(super().__iter__()):
            if i >= skip:
                self._position = i + 1
                yield batch

    @property
    def _epoch(self) -> int:
        return int(getattr(self.sampler, "epoch", 0))

    def state_dict(self) -> dict[str, int]:
        """The epoch, and the number of batches returned in it."""
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip these batches in the next iteration, if it is one of the same epoch."""
        self._resumed, self._position = state, state["position"]


class _Rows(Dataset[tuple[Tensor, Tensor]]):
    """A split as a map-style data set that returns a batch with a single indexing operation."""

    def __init__(self, split: Split):
        self.split = split

    def __len__(self) -> int:
        return len(self.split.images)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.split.images[i], self.split.attributes[i]

    def __getitems__(self, indices: list[int]) -> Split:
        return self.split.rows(torch.tensor(indices))
