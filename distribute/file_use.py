"""Whether a task's text may read files of the share: then an engine whose share does not answer leaves it to others.

What is in doubt may: a task that is held back for nothing waits, one that is not ends at its deadline.
"""

from __future__ import annotations

import json
import re
from typing import Any

# Of ansible-core and the collections that engines allow: what has src, a template, variables or tasks in a file.
_MODULES = (
    *("assemble", "copy", "include_role", "include_tasks", "include_vars", "import_role", "import_tasks", "patch"),
    *("script", "template", "unarchive", "uri", "win_copy", "win_template"),
)
_BY_SOURCE = ("assemble", "copy", "patch", "unarchive", "uri", "win_copy")  # these also go without a file
_LOOKS = r"\b(lookup|query|q)\s*\(|\bfileglob\b|\{%-?\s*(include|import|from|extends)\b"
_IN_ARGS = re.compile(_LOOKS)
_IN_PLAYBOOK = re.compile(
    _LOOKS + r"|\b(" + "|".join(sorted(_MODULES)) + r")\b|\b(import_playbook|roles|vars_files|with_\w+|realpath)\b"
    r"|\bis\s+(not\s+)?(file|directory|exists|link|link_exists|mount|same_file|vaulted_file|abs)\b"
)


def of_module(module: str, args: str | dict[str, Any]) -> bool:
    """Of an ad hoc task."""
    name = module.rpartition(".")[2]
    text = args if isinstance(args, str) else json.dumps(args)
    if name in _BY_SOURCE:
        return "src" in text or bool(_IN_ARGS.search(text))
    return name in _MODULES or bool(_IN_ARGS.search(text))


def of_playbook(text: str) -> bool:
    """Of a whole playbook, by its words."""
    return bool(_IN_PLAYBOOK.search(text))
