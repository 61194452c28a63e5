"""Schemas of files: what they allow, and the one line that names the file and the field."""

import json
import os

import pytest

import tiny
from seitpp.runtime.errors import UserError
from seitpp.runtime.schema import (
    Mismatch,
    anything,
    boolean,
    both,
    check,
    integer,
    listing,
    measured,
    number,
    one_of,
    optional,
    read_described,
    read_lines,
    read_yaml,
    record,
    table,
    text,
)  # fmt: skip

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("schema", "allowed", "refused"),
    [
        (integer(1, 5), [1, 5], [0, 6, True, 2.0, "2", None, 10**400]),
        (number(0, 1), [0, 1, 0.5], [-1e-9, 1.1, NAN, INF, True, "0"]),
        (number(), [-1e300, 10**30], [NAN, INF, -INF, None]),
        (measured, [1, -2.5, NAN, INF, -INF], [10**400, "1", None, False]),
        (text("[a-f]+", "letters"), ["abc"], ["", "abcg", "abc\n", None, 1, ["a"]]),
        (text(), ["", "ü\n", "\0"], ["\ud800", b"x", None]),
        (boolean, [True, False], [0, 1, "true", None]),
        (anything, [None, 1, {}], []),
        (one_of("a", 1), ["a", 1], ["b", True, 1.0, None, ["a"], {}]),
        (optional(integer(0)), [None, 3], [-1, ""]),
        (listing(integer(0)), [[], [1, 2]], [[1, -1], (1,), {}, "12", None]),
        (listing(integer(0), 2), [[1, 2]], [[], [1], [1, 2, 3]]),
        (table(integer(0)), [{}, {"x": 1}], [{"x": -1}, {"\ud800": 1}, {3: 1}, [], None]),
        (record({"a": integer(0)}, {"b": text()}), [{"a": 1}, {"a": 1, "b": "x", "c": 9}], [{}, {"a": 1, "b": 2}]),
        (record({"a": anything}, closed=True), [{"a": None}], [{"a": 1, "c": 9}, [], None]),
        (both(record({"a": anything}), table(integer(0))), [{"a": 1}], [{"b": 1}, {"a": 1, "b": -1}]),
    ],
)  # fmt: skip
def test_what_a_schema_allows_and_what_not(schema, allowed, refused):
    for value in allowed:
        schema(value, "")
    for value in refused:
        with pytest.raises(Mismatch):
            schema(value, "")


def test_the_field_is_named_by_the_way_to_it():
    schema = record({"shards": listing(record({"rows": integer(0)}))})
    for value, says in (
        ({"shards": [{"rows": 1}, {"rows": -1}]}, r"f\.json: shards\[1\]\.rows is -1, expected a whole.*; do it"),
        ({"shards": [{}]}, r"f\.json: shards\[0\] lacks 'rows'; do it"),
        ({"shards": [3]}, r"f\.json: shards\[0\] is 3, expected an object; do it"),
        ([], r"f\.json: the content is \[\], expected an object; do it"),
        ({"shards": [{"rows": "\x1b[2J\n" + "x" * 999}]}, r"shards\[0\]\.rows is '\\x1b\[2J\\nx{1,60}, expected"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=says) as raised:
            check(value, schema, "f.json", "do it")
        tiny.one_line(str(raised.value))


@pytest.mark.parametrize(
    "content", ["", "{", "[" * 100_000, '"\xff', "\xff\xfe", '{"a": -1}', '{"a": 1e999}', "1" * 5000]
)
def test_a_json_file_that_is_none_or_says_something_else_is_one_line(tmp_path, content):
    file = tmp_path / "f.json"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"f\.json.*make it again") as raised:
        read_described(file, record({"a": integer(0)}), "make it again")
    tiny.one_line(str(raised.value))


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("pipe.json", ".", "nothing.json"):
        with pytest.raises(UserError, match="is missing: make it again"):
            read_described(tmp_path / name, anything, "make it again")


def test_lines_are_checked_one_by_one_and_a_last_one_that_is_cut_off_is_left_out(tmp_path):
    file = tmp_path / "f.jsonl"
    file.write_text('{"a": 1}\n\n{"a": 2}\n{"a": ')
    schema = record({"a": integer(0)})
    assert read_lines(file, schema, "mend it") == [{"a": 1}, {"a": 2}]
    file.write_text('{"a": 1}\nnot json\n')
    with pytest.raises(UserError, match=r"f\.jsonl: line 2 can't be read as JSON .*: mend it"):
        read_lines(file, schema, "mend it")
    file.write_text('{"a": 1}\n' + json.dumps({"a": "x"}) + "\n")
    with pytest.raises(UserError, match=r"f\.jsonl: line 2: a is 'x', expected .*; mend it"):
        read_lines(file, schema, "mend it")
    file.write_bytes(b"\xe9\n")
    with pytest.raises(UserError, match=r"f\.jsonl is not UTF-8"):
        read_lines(file, schema, "mend it")


@pytest.mark.parametrize("content", ["a: [", "a: 2024-13-45\n", "- 1", "a: x", "!!python/name:os.system", "\x00"])
def test_yaml_that_is_none_or_says_something_else_is_one_line(tmp_path, content):
    (tmp_path / "f.yaml").write_text(content)
    with pytest.raises(UserError, match=r"f\.yaml.*mend it") as raised:
        read_yaml(tmp_path / "f.yaml", record({"a": integer(0)}), "mend it")
    tiny.one_line(str(raised.value))
