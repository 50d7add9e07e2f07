from xformer.tokenizers.byte import Byte


def test_bytes_are_bytes():
    assert Byte().encode("aé").tolist() == [97, 195, 169]
    assert (Byte().vocabulary, Byte().end_of_text) == (257, 256)


def test_a_character_that_is_cut_is_replaced():
    assert Byte().decode([97, 195, 256]) == "a\ufffd"
