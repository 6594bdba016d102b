"""What a graph costs on paper: multiply-accumulates and bytes of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bundle import Bundle


def macs(bundle: Bundle) -> int:
    """Multiply-accumulates of convolutions and matrix products for one sample (torch's FLOP counter, halved).

    Each free axis other than the batch has the size of the example inputs. Quantized graphs count as their float form.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        bundle.graph(*bundle.sized(1))
    return int(counter.get_total_flops()) // 2
