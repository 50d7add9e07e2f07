from tests.tokenizers.examples import TOKENIZERS


def test_bpe_merges_what_is_frequent():
    tokenizer = TOKENIZERS["bpe"]
    assert 257 < tokenizer.vocabulary <= 300
    assert tokenizer.end_of_text == tokenizer.vocabulary - 1
    assert len(tokenizer.encode("the cat sat")) < 6
