"""YAML of strangers: where an error is, and that no text costs more than its size."""

from __future__ import annotations

import time

import pytest
import yaml

from distribute import yamltext
from distribute.yamltext import MAX_DEPTH, MAX_NODES
from tests.unit.distribute.problems import problem_of

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{chr(ord(name) - 1)}'] * 9)}]\n" for name in "bcdefghi"
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: [}", "line 2, column 5: expected YAML, found an error: while parsing a flow node"),
        ("a: 1\n\tb: 1", "line 2, column 1: expected YAML, found an error: while scanning a plain scalar"),
        ("a: 1\n b: 2", "line 2, column 3: expected YAML, found an error: mapping values are not allowed"),
        ("- &a 1\n- &a 2", "line 2, column 3: expected YAML, found an error: found duplicate anchor"),
        ("a: *gone", "line 1, column 4: expected YAML, found an error: found undefined alias"),
        ("a: 1\n---\nb: 1", "line 2, column 1: expected YAML, found an error: expected a single document"),
        ("%YAML 9.9\n---\na: 1", "line 1, column 1: expected YAML, found an error: found incompatible YAML document"),
        ("a: 1\nb: !foo 2", "line 2, column 4: expected plain YAML, !vault or !unsafe, found the tag !foo"),
        ("a: !foo [2]", "line 1, column 4: expected plain YAML, !vault or !unsafe, found the tag !foo"),
        (
            "a: !!python/object/apply:os.system [id]",
            "line 1, column 4: expected plain YAML, !vault or !unsafe, found the tag tag:yaml.org,2002:python/object",
        ),
        ("a: &x [1, *x]", "line 1, column 11: expected data that ends, found *x inside itself"),
        ("a: &x {b: {c: *x}}", "line 1, column 15: expected data that ends, found *x inside itself"),
    ],
)
def test_an_error_is_told_with_its_line_and_column(text: str, problem: str) -> None:
    assert problem_of(lambda: yamltext.compose(text)).startswith(problem)


@pytest.mark.parametrize("character", ["\x01", "\x7f", "\x80", "\ufffe", "\ud800", "\0"])
def test_the_place_of_a_character_that_yaml_does_not_know_counts_characters_not_bytes(character: str) -> None:
    text = f"# größe 😀\n# größe 😀\na: ä{character}\n#\n#\n#\n"
    assert (
        problem_of(lambda: yamltext.compose(text))
        == f"line 3, column 5: expected YAML, found the character {character!r}"
    )


def test_every_other_character_is_text() -> None:
    root = yamltext.compose('a: "größe \\0 😀 \ufffd"')
    assert isinstance(root, yaml.MappingNode)
    assert root.value[0][1].value == "größe \0 😀 \ufffd"


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_document_is_no_error(text: str) -> None:
    root = yamltext.compose(text)
    assert root is None or root.value == ""


@pytest.mark.parametrize("tag", ["!vault", "!vault-encrypted", "!unsafe", "!!str", "!!int", "!!binary", "!"])
def test_tags_of_ansible_and_of_plain_yaml_are_known(tag: str) -> None:
    assert yamltext.compose(f"a: {tag} x") is not None


def test_an_alias_bomb_is_refused_before_it_is_built() -> None:
    started = time.process_time()
    problem = problem_of(lambda: yamltext.compose(BOMB))
    assert problem.startswith("line 6, column ")
    assert problem.endswith(f"expected at most {MAX_NODES} values; aliases count as what they repeat")
    assert time.process_time() - started < 1


def test_keys_and_merges_that_repeat_an_anchor_count_too() -> None:
    keys = "".join(f"? [{', '.join(['*d'] * 9)}]\n: {number}\n" for number in range(9))
    assert "aliases count as what they repeat" in problem_of(
        lambda: yamltext.compose("\n".join(BOMB.splitlines()[:4]) + f"\n{keys}")
    )


def test_many_values_are_read_up_to_the_limit() -> None:
    values = ["x"] * (MAX_NODES - 1)
    assert yamltext.compose(f"[{','.join(values)}]") is not None
    assert "expected at most" in problem_of(lambda: yamltext.compose(f"[{','.join([*values, 'x'])}]"))


@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_levels_are_limited_before_any_recursion(brackets: str) -> None:
    left, right = brackets
    assert yamltext.compose(left * MAX_DEPTH + right * MAX_DEPTH) is not None
    problem = f"line 1, column {MAX_DEPTH + 1}: expected at most {MAX_DEPTH} levels of lists and mappings"
    assert problem_of(lambda: yamltext.compose(left * 100_000)) == problem
