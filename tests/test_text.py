"""One of a thing is not called several, and a tokenizer goes by what is known of it."""

from __future__ import annotations

from vqtok.text import counted, printable, tokenizer_text


def test_one_is_no_plural() -> None:
    assert [counted(number, "image") for number in (0, 1, 1200)] == ["0 images", "1 image", "1,200 images"]


def test_a_tokenizer_goes_by_what_is_known_of_it() -> None:
    fingerprint = "0123456789abcdef"
    assert tokenizer_text(fingerprint) == tokenizer_text(fingerprint, revision="89ab") == "0123456789ab"
    assert tokenizer_text(fingerprint, "org/name") == "0123456789ab (org/name)"
    assert tokenizer_text(fingerprint, "org/name", "89ab") == "0123456789ab (org/name at 89ab)"


def test_what_would_move_the_cursor_is_written_as_an_escape() -> None:
    assert printable("caf\u00e9 \x1b[2J\u202e\n") == "caf\u00e9 \\x1b[2J\\u202e\\n"
