"""What a graph costs on paper: multiply-accumulates and bytes of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bundle import Bundle


def macs(bundle: Bundle) -> int:
    """Multiply-accumulates of convolutions, matrix products and recurrent layers for one sample (torch's FLOP counter, halved).

    Each free axis other than the batch has the size of the example inputs. Quantized graphs count as their float form.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    # torch runs an LSTM as one operator that its counter doesn't know.
    fused = {torch.ops.aten.mkldnn_rnn_layer: _recurrent_flops} if hasattr(torch.ops.aten, "mkldnn_rnn_layer") else {}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=fused) as counter:
        bundle.graph(*bundle.sized(1))
    return int(counter.get_total_flops()) // 2


def _recurrent_flops(x: tuple[int, ...], w_ih: tuple[int, ...], w_hh: tuple[int, ...], *_: object, **__: object) -> int:
    """Of one layer and direction, from the shapes of its input (time, batch, features) and its two weights (rows, columns)."""
    steps, batch, _features = x
    return 2 * steps * batch * (w_ih[0] * w_ih[1] + w_hh[0] * w_hh[1])
