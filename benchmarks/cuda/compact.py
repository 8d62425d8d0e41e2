"""Checkpoints small enough to be carried: weights in half precision, cut into files below 16 MB."""

import io
import os
from pathlib import Path
from typing import Any

import torch

SHARD = 15_500_000  # bytes


def save(model: torch.nn.Module, path: Path, **values: Any) -> None:
    """The model's weights, without the optimiser's moments, and some values, as path.0, path.1, ..."""
    state = {
        name: value.cpu().half() if value.is_floating_point() else value.cpu()
        for name, value in model.state_dict().items()
    }
    buffer = io.BytesIO()
    torch.save({"state": state} | values, buffer)
    content = buffer.getbuffer()
    path.parent.mkdir(parents=True, exist_ok=True)
    for i, start in enumerate(range(0, len(content), SHARD)):
        beside = path.with_name(f".{path.name}.{i}")
        beside.write_bytes(content[start : start + SHARD])
        os.replace(beside, path.with_name(f"{path.name}.{i}"))


def load(model: torch.nn.Module, path: Path) -> dict[str, Any] | None:
    """Put the weights into the model; the values, None if there is no such checkpoint."""
    shards = sorted(path.parent.glob(f"{path.name}.[0-9]"))
    if not shards:
        return None
    content = io.BytesIO(b"".join(shard.read_bytes() for shard in shards))
    found: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
    model.load_state_dict(found.pop("state"))
    return found
