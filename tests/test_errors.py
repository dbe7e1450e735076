"""Foreign errors inside our own messages."""

from edgegeo.errors import one_line


def test_a_foreign_error_fits_on_one_line() -> None:
    assert one_line(ValueError("first\n  second\tthird ")) == "first second third"
    assert len(one_line(ValueError("x" * 1000))) == 200
    assert one_line(TimeoutError()) == one_line(TimeoutError(" \n")) == "TimeoutError"
