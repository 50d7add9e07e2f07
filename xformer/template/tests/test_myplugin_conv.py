"""The mixer is its equation, reads no future and no padding, and decodes as it trains."""

import pytest
import torch
from myplugin.conv import MyPluginConv

import xformer
from xformer.core.mask import Mask
from xformer.errors import IncompatibleError

LENGTH, FEATURES, WIDTH = 7, 8, 3


def mixer(**options: object) -> MyPluginConv:
    return xformer.MyPluginConv(d_model=FEATURES, num_heads=2, width=WIDTH, **options).double().eval()


def tokens(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, LENGTH, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_it_is_the_equation_written_out() -> None:
    mix, x = mixer(), tokens()
    weight = mix.convolution.weight  # the token's own is the last
    before, after, h = (x @ mix.input.weight.T).split(FEATURES, dim=-1)
    expected = torch.zeros_like(x)
    for i in range(LENGTH):
        y = sum(weight[:, 0, WIDTH - 1 - j] * (before * h)[:, i - j] for j in range(min(WIDTH, i + 1)))
        expected[:, i] = (after[:, i] * y) @ mix.output.weight.T
    torch.testing.assert_close(mix(x), expected)


def test_no_token_reads_a_later_one() -> None:
    mix, x, others = mixer(), tokens(), tokens(seed=1)
    for i in range(1, LENGTH):
        changed = torch.cat([x[:, :i], others[:, i:]], dim=1)
        torch.testing.assert_close(mix(changed)[:, :i], mix(x)[:, :i], rtol=0, atol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_as_if_it_were_not_there(side: str) -> None:
    mix, x = mixer(), tokens()
    valid = torch.arange(LENGTH).expand(2, -1) < LENGTH - 2
    valid = valid.flip(-1) if side == "left" else valid
    mask = Mask.consecutive(0, LENGTH, causal=True, key_padding=valid)
    padded = mix(x.masked_fill(~valid[..., None], 1e6), mask=mask)[valid]
    torch.testing.assert_close(padded, mix(x[valid].unflatten(0, (2, -1))).flatten(0, 1))


def test_steps_are_the_whole() -> None:
    mix, x = mixer(), tokens()
    state = mix.init_state(LENGTH)
    steps = [mix(x[:, i : i + 1], state=state) for i in range(LENGTH)]
    torch.testing.assert_close(torch.cat(steps, dim=1), mix(x))


def test_an_encoder_refuses_it() -> None:
    with pytest.raises(IncompatibleError, match="reads earlier tokens alone"):
        mixer(causal=False)
