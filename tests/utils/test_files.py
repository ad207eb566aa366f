from utils.files import excerpt


def test_an_excerpt_is_one_printable_line_of_bounded_length():
    assert excerpt("encoder.weight, é") == "encoder.weight, é"
    assert excerpt("a\nb\x1b[2J") == r"a\nb\x1b[2J"
    assert excerpt("\ud800") == r"\ud800"
    assert excerpt("x" * 1000) == "x" * 200
    assert excerpt("\0" * 1000) == r"\x00" * 50
