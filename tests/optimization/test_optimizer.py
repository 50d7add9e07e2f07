"""What the optimisers are given."""

import torch
from torch import nn

from xformer.optimization.optimizer import adam, adamw


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.frozen = nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 4)
        self.frozen.requires_grad_(False)


def test_adamw_decays_matrices_alone() -> None:
    net = Net()
    groups = adamw(net, False, lr=0.1, betas=[0.9, 0.99], eps=1e-8, weight_decay=0.5).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    rest = {id(p) for group in groups if not group["weight_decay"] for p in group["params"]}
    assert decayed == {id(net.layer.weight)}
    assert rest == {id(net.layer.bias), id(net.norm.weight), id(net.norm.bias)}
    assert all(group["betas"] == (0.9, 0.99) for group in groups)


def test_fused_and_plain_take_the_same_step() -> None:
    after = []
    for fused in (False, True):
        torch.manual_seed(0)
        net = Net()
        optimizer = adamw(net, fused, lr=0.1, betas=[0.9, 0.98], eps=1e-8, weight_decay=0.1)
        net.norm(net.layer(torch.ones(2, 3))).square().sum().backward()
        optimizer.step()
        after.append(net.layer.weight)
    torch.testing.assert_close(after[0], after[1])


def test_adam_leaves_frozen_parameters_out() -> None:
    optimizer = adam(Net(), False, lr=0.1, betas=[0.9, 0.98], eps=1e-9)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4
    assert optimizer.defaults["eps"] == 1e-9
