import pytest

from tests.tokenizers.examples import TOKENIZERS
from xformer.tokenizers.base import Tokenizer


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]
