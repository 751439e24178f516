"""GraSP: how much the gradient's norm would change if each weight were removed.

Wang, Zhang & Grosse 2020, "Picking Winning Tickets Before Training by Preserving Gradient Flow" (ICLR): the score of a
weight is ``-θ ⊙ Hg`` with the gradient g and the Hessian H of the loss. As a proxy it is summed over the weights of
all layers (Abdelfattah et al. 2021, "Zero-Cost Proxies for Lightweight NAS", ICLR, section 3.2). Logits are divided by
a temperature of 1, as in the program of the proxy's authors, where the pruning paper takes 200.
"""

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nasplat.proxy import Batch, ZeroCostProxy
from nasplat.strategies.proxies.gradients import differentiable, total
from nasplat.strategies.proxies.scratch import weights


@torch.enable_grad()
def _grasp(network: nn.Module, batch: Batch) -> float:
    copied = differentiable(network, batch)
    chosen = weights(copied)
    # Neither sums of bags (hashed words) nor fused attention have a second derivative.
    for module in copied.modules():
        if hasattr(module, "bagged"):
            module.bagged = False  # type: ignore[assignment]
    with sdpa_kernel(SDPBackend.MATH):
        loss = batch.loss(copied(batch.inputs), batch.targets)
        gradients = torch.autograd.grad(loss, chosen, create_graph=True, allow_unused=True)
        reached = [(w, g) for w, g in zip(chosen, gradients, strict=True) if g is not None]
        # The derivative of g·(g held fixed) is Hg.
        product = torch.stack([(g * g.detach()).sum() for _, g in reached]).sum()
        curvatures = torch.autograd.grad(product, [w for w, _ in reached], allow_unused=True)
    scores = [-(w.detach() * h).sum() for (w, _), h in zip(reached, curvatures, strict=True) if h is not None]
    return total(scores)


grasp = ZeroCostProxy("grasp", _grasp, preserves=True)
