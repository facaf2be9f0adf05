"""What diffusers makes beside images, video and sound."""

from __future__ import annotations

import torch
from torch import randn

from zoo.entry import model


@model("RFD4ProteinaTransformer", unknown="its tokens are of a protein")
def proteina():
    config = {"nlayers": 2, "token_dim": 16, "nheads": 2, "dim_cond": 8, "pair_repr_dim": 8, "latent_dim": 4}
    config |= {"t_emb_dim": 8, "xt_pair_dist_dim": 4, "feats_seq": ("xt_bb_ca", "xt_local_latents"), "tri_mult_c": 8}
    config |= {"feats_cond_seq": ("time_emb_bb_ca",), "feats_pair_repr": ("xt_bb_ca_pair_dists",)}
    config |= {"feats_pair_cond": ("time_emb_bb_ca",), "num_sequence_classes": 5}
    times = {"bb_ca_time": torch.tensor([0.5, 0.6]), "local_latents_time": torch.tensor([0.5, 0.6])}
    given = {"is_in_context_conditioning": torch.zeros(2, 9), "supports_local_latent": torch.ones(2, 9)}
    arguments = {"bb_ca": randn(2, 9, 3), "local_latents": randn(2, 9, 4), "padding_mask": torch.ones(2, 9).bool()}
    return config, {**arguments, **times, "conditioning": given}
