"""The configuration file that is shipped, and its table for the documents, made from the declarations:

python -m contract.shipped > conf/server.conf
python -m contract.shipped --table > docs/configuration.md
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator

from contract import config, options
from contract.layers import Section
from contract.options import Option

_HEAD = """\
One file for distribute and execute-engine; both read it at their start and refuse to start while anything in it is
wrong. A value that is empty means the default. Relative paths start at the folder above this file's. A comment stands
on a line of its own; a value may have any character, % # and ; too. `systemctl reload` has a service read it again.

Each value can be overridden by an environment variable EXECUTE_ENGINE_SECTION_KEY; a secret by
EXECUTE_ENGINE_SECTION_KEY_FILE, the path of a file that holds it. A secret may be encrypted, as enc:... made by
python -m contract.secret."""


def text() -> str:
    """The whole file: every key with its default, and what it means."""
    parts = [_comment(_HEAD), *("\n".join(_section(section)) for section in config.sections())]
    return "\n\n".join(parts) + "\n"


_TABLE_HEAD = """\
# Configuration

Every key of conf/server.conf. The file itself says the same, and how values are overridden. A reload changes
those that say so; the log names the others that were changed and wait for a restart.

| section | key | default | meaning |
|---|---|---|---|
"""


def table() -> str:
    """A Markdown page with a row for each key."""
    rows = [
        f"| {section.names[0]} | {key} | {options.default_text(item)} | {_words(section, key, option)} |"
        for section in config.sections()
        for key, item, option in section.declared()
    ]
    return _TABLE_HEAD + "\n".join(rows) + "\n"


def _section(section: Section) -> Iterator[str]:
    yield f"[{section.names[0]}]"
    yield _comment(inspect.getdoc(section.settings) or "")
    for key, item, option in section.declared():
        yield ""
        yield _comment(_words(section, key, option))
        yield f"{key} = {options.default_text(item)}".rstrip()


def _words(section: Section, key: str, option: Option) -> str:
    return "Secret. " * option.secret + option.words + " A reload changes it." * section.is_live(key)


def _comment(words: str) -> str:
    paragraphs = (textwrap.fill(paragraph, 110) for paragraph in words.split("\n\n"))
    return textwrap.indent("\n\n".join(paragraphs), "# ", lambda _: True).replace("# \n", "#\n")


if __name__ == "__main__":
    print(table() if sys.argv[1:] == ["--table"] else text(), end="")
