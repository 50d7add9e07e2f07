import pytest

from tests.tokenizers.examples import TOKENIZERS
from xformer.errors import DataError
from xformer.tokenizers.file import File


def test_a_file_gives_the_ids_of_whoever_wrote_it(tmp_path):
    from tokenizers import Tokenizer as Model
    from tokenizers import models, pre_tokenizers, processors

    model = Model(models.WordLevel({"[UNK]": 3, "the": 7, "cat": 1}, unk_token="[UNK]"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    model.add_special_tokens(["[CLS]"])
    model.post_processor = processors.TemplateProcessing("[CLS] $A", special_tokens=[("[CLS]", 4)])
    model.enable_truncation(2)
    model.enable_padding(length=9)
    model.save(str(tmp_path / "word.json"))
    tokenizer = File(path=str(tmp_path / "word.json"))
    tokenizer.train(["never read"])
    assert tokenizer.encode("the cat the dog").tolist() == [7, 1, 7, 3]
    assert (tokenizer.end_of_text, tokenizer.vocabulary) == (8, 9)
    assert tokenizer.decode([7, 1, 8]) == "the cat"
    tokenizer.save(tmp_path)
    (tmp_path / "word.json").unlink()
    restored = File(path=str(tmp_path / "word.json"))
    restored.load(tmp_path)
    assert restored.encode("cat").tolist() == [1]
    assert restored.fingerprint == tokenizer.fingerprint


def test_a_file_may_be_that_of_a_run(tmp_path):
    TOKENIZERS["bpe"].save(tmp_path)
    tokenizer = File(path=str(tmp_path / "tokenizer.json"))
    assert tokenizer.encode("the cat").tolist() == TOKENIZERS["bpe"].encode("the cat").tolist()
    assert tokenizer.vocabulary == TOKENIZERS["bpe"].vocabulary


@pytest.mark.parametrize("content", [None, "{", "[]", '{"version": "1.0"}', '{"kind": "Byte", "state": {}}', b"\xff"])
def test_a_file_that_is_no_tokenizer_is_named(tmp_path, content):
    path = tmp_path / "t.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    tokenizer = File(path=str(path))
    message = "cannot be read" if content is None else "is not (a tokenizer of the tokenizers library|UTF-8)"
    for use in (lambda: tokenizer.train([]), lambda: tokenizer.settings(), lambda: tokenizer.vocabulary):
        with pytest.raises(DataError, match=rf"tokenizer\.path=.*t\.json {message}") as caught:
            use()
        assert "\n" not in str(caught.value)
