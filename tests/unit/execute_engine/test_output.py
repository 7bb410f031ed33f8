"""What a host printed: readable, masked before it is cut, and never longer than its column."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from execute_engine.events import to_json
from execute_engine.output import DETAIL_LIMIT_BYTES, FIELD_LIMIT_BYTES, Cleaner, cut, fit, readable

SECRET = "correct horse"


def test_short_text_is_left_alone_and_nothing_stays_nothing() -> None:
    assert Cleaner([SECRET]).field("päss\n") == "päss\n"
    assert Cleaner().field("") == ""
    assert Cleaner().field(None) is None


@pytest.mark.parametrize(("value", "text"), [(7, "7"), (b"a\xffb", "a\\xffb"), (("ä", 1), '["ä", 1]')])
def test_a_field_that_is_no_text_becomes_one(value: object, text: str) -> None:
    assert Cleaner().field(value) == text


def test_bytes_that_are_not_utf8_are_shown_as_such() -> None:
    assert readable(b"a\xff\xfeb \xc3\xa4".decode("utf-8", "surrogateescape")) == "a\\xff\\xfeb ä"
    assert readable("half \ud800 pair") == "half \\ud800 pair"
    assert readable("plain") == "plain"


def test_text_up_to_the_limit_is_whole_and_one_byte_more_is_cut_in_the_middle() -> None:
    assert cut("x" * FIELD_LIMIT_BYTES) == "x" * FIELD_LIMIT_BYTES
    found = cut("a" + "x" * (FIELD_LIMIT_BYTES - 1) + "z")
    assert len(found) <= FIELD_LIMIT_BYTES
    assert found.startswith("axxx")
    assert found.endswith("xxxz")


@pytest.mark.parametrize("letter", ["x", "ä", "€", "😀"])
@pytest.mark.parametrize("shift", range(4))
def test_the_marker_says_how_many_bytes_are_missing(letter: str, shift: int) -> None:
    text = "y" * shift + letter * 50_000 + "end"
    if len(text.encode()) <= FIELD_LIMIT_BYTES:
        text += "z" * FIELD_LIMIT_BYTES
    found = cut(text)
    head, _, rest = found.partition("\n[... ")
    number, _, tail = rest.partition(" bytes left out ...]\n")
    assert FIELD_LIMIT_BYTES - 20 < len(found.encode()) <= FIELD_LIMIT_BYTES
    assert len(head.encode()) + int(number) + len(tail.encode()) == len(text.encode())
    assert text.startswith(head)
    assert text.endswith(tail)


def test_secrets_are_masked_the_longest_first_and_short_ones_are_not() -> None:
    cleaner = Cleaner(["correct horse", "correct horse battery", "short", ""])
    assert cleaner.mask("say correct horse battery, correct horse, short") == "say ***, ***, short"


def test_the_cut_never_leaves_half_a_secret() -> None:
    for at in range(FIELD_LIMIT_BYTES // 2 - 60, FIELD_LIMIT_BYTES // 2 + 60):
        found = Cleaner([SECRET]).field("x" * at + SECRET + "y" * FIELD_LIMIT_BYTES)
        assert found is not None
        assert "correct" not in found
        assert "horse" not in found


def test_half_a_secret_at_a_cut_that_was_made_without_knowing_it_goes_too() -> None:
    for at in range(FIELD_LIMIT_BYTES // 2 - 60, FIELD_LIMIT_BYTES // 2 + 60):
        for text in ("x" * at + SECRET + "y" * FIELD_LIMIT_BYTES, "x" * FIELD_LIMIT_BYTES + SECRET + "y" * at):
            found = Cleaner([SECRET]).mask(cut(text))
            assert "bytes left out" in found
            assert "corr" not in found
            assert "orse" not in found


def test_nested_data_is_masked_everywhere_and_becomes_json() -> None:
    value = {
        f"name {SECRET}": [SECRET, (SECRET, 1, None, True, 1.5), {SECRET}],
        3: b"bytes " + SECRET.encode(),
        "deep": {"er": {"est": SECRET}},
    }
    found = Cleaner([SECRET]).data(value)
    assert SECRET not in json.dumps(found)
    assert found["name ***"] == ["***", ["***", 1, None, True, 1.5], ["***"]]
    assert found["3"] == "bytes ***"
    assert found["deep"] == {"er": {"est": "***"}}


def test_a_secret_is_found_in_text_that_is_not_utf8_too() -> None:
    assert Cleaner([SECRET]).mask(f"\udcff{SECRET}\udcff") == "\\xff***\\xff"


def test_a_secret_that_is_not_utf8_itself_is_found() -> None:
    secret = b"p\xe4ssword!".decode("utf-8", "surrogateescape")
    assert Cleaner([secret]).mask(f"say {secret}") == "say ***"


def test_a_small_detail_is_left_alone() -> None:
    detail = {"cmd": "id", "tasks": [{"name": "a"}], "result": {"x": "y"}}
    assert fit(detail) == detail


def sized(detail: dict[str, Any]) -> int:
    return len(json.dumps(detail, ensure_ascii=False, separators=(",", ":")).encode())


def test_the_middle_of_a_long_task_list_goes_first() -> None:
    rows = [{"name": f"task {number}", "status": "ok"} for number in range(20_000)]
    found = fit({"counts": {"ok": 20_000}, "tasks": rows, "result": {"x": "y"}})
    assert sized(found) <= DETAIL_LIMIT_BYTES
    assert found["tasks"][0] == rows[0]
    assert found["tasks"][-1] == rows[-1]
    assert len(found["tasks"]) + found["tasks_left_out"] == 20_000
    assert sized(found) > DETAIL_LIMIT_BYTES - 1000
    assert found["result"] == {"x": "y"}


def test_of_a_large_result_the_largest_values_go() -> None:
    found = fit({"cmd": "id", "result": {"small": "s", "huge": "x" * DETAIL_LIMIT_BYTES, "large": "y" * 1000}})
    assert found["result"]["small"] == "s"
    assert found["result"]["large"] == "y" * 1000
    assert found["result"]["huge"] == f"[{DETAIL_LIMIT_BYTES + 2} bytes left out]"
    assert sized(found) <= DETAIL_LIMIT_BYTES


def test_nothing_is_too_large_to_fit() -> None:
    rows = [{"name": "ä" * 200_000, "status": "ok"}]
    detail = {"cmd": ["x"] * 200_000, "tasks": rows, "result": {str(n): "€" * 100 for n in range(5000)}, "warnings": []}
    before = json.dumps(detail)
    assert sized(fit(detail)) <= DETAIL_LIMIT_BYTES
    assert json.dumps(detail) == before, "the caller's own data was changed"


SECRETS = ["correct horse", "quote\"back\\slash's", "pässwörter 😀", "two\nlines of it", "ud83dud83d"]
PIECES = [
    *SECRETS, *map(json.dumps, SECRETS), "two", "correct", " ", "horse", "\n", "\\", "\\u0041", "é", "😀", "\udc80",
    "\ud800", "\n[... 12 bytes left out ...]\n",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=4).map("".join)
EVENTS = st.dictionaries(TEXTS, st.recursive(TEXTS | st.integers() | st.none(), st.lists, max_leaves=4), max_size=4)


@given(EVENTS)
@example({"stdout": "nothing to see"})
@example({"stdout": "the pässwörter 😀"})
@example({"correct horse": 1})
def test_an_event_whose_json_is_clean_has_nothing_to_be_cleaned(event: dict[str, Any]) -> None:
    cleaner = Cleaner(SECRETS)
    body = to_json(event)
    if cleaner.is_clean(body):
        assert cleaner.event(event) == event
    if event == {"stdout": "nothing to see"}:
        assert cleaner.is_clean(body)


def test_json_that_is_long_or_deep_or_not_ascii_is_in_doubt() -> None:
    assert not Cleaner(SECRETS).is_clean(b'"%b"' % (b"x" * FIELD_LIMIT_BYTES))
    assert not Cleaner(SECRETS).is_clean(b"[" * 500 + b"]" * 500)
    assert not Cleaner(SECRETS).is_clean('{"stdout":"pässwörter 😀"}'.encode())
