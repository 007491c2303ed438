"""The published forward passes of MERT-v2 and MuQ in plain PyTorch: the baselines of `bench.encoders`.

Both take the weights of our networks and share the front end with them.  The rest is computed as the published code does: in
(batch, channel, frame) for convolutions, batch norms not merged, and MuQ's blocks by transformers' Wav2Vec2Conformer.
"""

from __future__ import annotations

import copy
from types import MethodType
from typing import Any


def plain_mert2(network: Any) -> Any:
    """A copy of a `Mert2Network`, sharing its weights, whose convolutions transpose as the published modules do."""
    from torch.nn import functional as f

    from tonelake.embed.encoders.conformer import Depthwise, Pointwise
    from tonelake.embed.encoders.mert2.network import ResponseNorm
    from tonelake.embed.encoders.torch_encoder import shared_tensors

    def convolution(block: Any, states: Any) -> Any:
        _, first, _, depthwise, norm, _, last = block.conv_block
        states = f.glu(f.conv1d(block.layer_norm(states).transpose(1, 2), first.weight), dim=1)
        states = f.conv1d(states, depthwise.weight, padding=depthwise.padding, groups=depthwise.groups)
        states = f.gelu(norm(states.transpose(1, 2)).transpose(1, 2))
        return f.conv1d(states, last.weight).transpose(1, 2)

    def response_norm(norm: Any, states: Any) -> Any:
        length = states.norm(p=2, dim=1, keepdim=True)
        return norm.weight * (states * (length / (length.mean(dim=-1, keepdim=True) + 1e-6))) + norm.bias + states

    def depthwise(module: Any, states: Any) -> Any:
        found = f.conv1d(states.transpose(1, 2), module.weight, module.bias, padding=module.padding, groups=module.groups)
        return found.transpose(1, 2)

    plain = copy.deepcopy(network, shared_tensors(network))
    for module in plain.modules():
        if isinstance(module, Depthwise):
            module.forward = MethodType(depthwise, module)
        elif isinstance(module, ResponseNorm):
            module.forward = MethodType(response_norm, module)
    for block in plain.layers:
        kinds = [type(module) for module in block.conv_module.conv_block]
        assert kinds.count(Pointwise) == 2 and kinds.count(Depthwise) == 1, "network.Convolution has changed: adapt this file"
        block.conv_module.forward = MethodType(convolution, block.conv_module)
    return plain


def plain_muq(network: Any) -> Any:
    """A module with `states`, as a `MuqNetwork` before `fold_batch_norms` has them, its blocks by transformers."""
    import torch
    from torch import nn
    from transformers import Wav2Vec2ConformerConfig
    from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import Wav2Vec2ConformerEncoder

    sizes = network.sizes
    config = Wav2Vec2ConformerConfig(
        hidden_size=sizes.hidden, num_hidden_layers=sizes.blocks, num_attention_heads=sizes.heads,
        intermediate_size=sizes.inner, hidden_act="swish", position_embeddings_type="rotary",
        conv_depthwise_kernel_size=sizes.kernel, hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0,
        layerdrop=0.0, attn_implementation="sdpa",
    )

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.feature_extractor, self.conv = network.feature_extractor, copy.deepcopy(network.conv)
            with torch.device("meta"):
                self.conformer = Wav2Vec2ConformerEncoder(config)
            self.conformer.pos_conv_embed = nn.Identity()            # no forward pass uses it
            self.conformer.load_state_dict(network.conformer.state_dict(), assign=True)

        def states(self, samples: Any) -> list[Any]:
            found: list[Any] = []
            hooks = [block.register_forward_hook(lambda *call: found.append(call[2])) for block in self.conformer.layers[:-1]]
            dtype = self.conv.linear.weight.dtype
            mel = self.feature_extractor(samples).to(dtype)          # (batch, frame, band)
            first = self.conv.linear(self.conv.conv(mel.transpose(1, 2).unsqueeze(1)).permute(0, 3, 1, 2).flatten(2))
            last = self.conformer(first).last_hidden_state
            for hook in hooks:
                hook.remove()
            return [first, *found, last]

    return Plain().eval().requires_grad_(False)
