"""One fit over several processes with different rows, through torch.distributed."""

from __future__ import annotations

from ringdist.backend import Array, backend_name


def all_reduce(array: Array) -> Array:
    """The sum of `array` over all processes of the default torch.distributed group, for `fit_em(..., reduce=)`.

    Args:
        array: a PyTorch tensor on the group's device, or a NumPy array (with a CPU backend such as gloo), of equal
            shape in every process.

    Raises:
        RuntimeError: if torch.distributed is not initialised.
        TypeError: if the array is of another backend.

    Examples:
        >>> import torch
        >>> import torch.distributed as dist
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> all_reduce(torch.tensor([1.0, 2.0]))  # of one process
        tensor([1., 2.])
        >>> dist.destroy_process_group()
    """
    import torch
    import torch.distributed

    match backend_name(array):
        case "torch":
            total = array.detach().clone()
        case "numpy":
            total = torch.tensor(array)
        case other:
            raise TypeError(f"all_reduce sums PyTorch or NumPy arrays, found {other}")
    torch.distributed.all_reduce(total)
    return total if backend_name(array) == "torch" else total.numpy()
