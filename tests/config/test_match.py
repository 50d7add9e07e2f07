"""What is to be equal is spelt as it would be typed."""

from xformer.config.match import Match


def test_a_reference_is_what_the_command_line_takes() -> None:
    to = {"attention": "full", "decoder_attention": "local", "position": "t5"}
    match = Match(measure="flops", to=to, by="size.feed_forward", was=None)
    assert match.reference == "attention=full attention@decoder_attention=local position=t5"
