"""One provisioning at a time, from however many machines.

Zabbix looks whether a name is taken and then inserts, and its database does not mind two host groups, templates or
dashboards of one name: two that begin together make both. Of global macros the database itself holds the names to be
unique, so one of them says whose turn it is.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import suppress

from execute_engine.errors import ProvisionError
from execute_engine.zabbix.api import Api

MACRO = "{$EXEC.PROVISIONING}"
WORDS = "Sets up the Execute Engine at this moment; gone when it is done."
LOOK_SECONDS = 0.5
DEAD_SECONDS = 180.0  # who holds a turn for longer was killed: it takes seconds, and one call two minutes at most
PATIENCE_SECONDS = 900.0  # with all who come before
MOST_REFUSALS = 3
WAITS = "waits"


def take(api: Api, who: str) -> Generator[tuple[str, str], None, str]:
    """Block until it is our turn, PATIENCE_SECONDS at most; returns what is to be given back.

    Yields whom it waits for, as provisioning does what it has done. Raises ProvisionError.
    """
    deadline, seen, since, refusals = time.monotonic() + PATIENCE_SECONDS, "", 0.0, 0
    while True:
        held = api.call("usermacro.get", globalmacro=True, output="extend", filter={"macro": MACRO})
        if not held:
            try:
                taken = api.call("usermacro.createglobal", macro=MACRO, value=who, description=WORDS)
                return str(taken["globalmacroids"][0])
            except ProvisionError:  # somebody was faster: the next look shows who
                refusals += 1
                if refusals == MOST_REFUSALS:
                    raise
                continue
        lock, holder, moment, refusals = str(held[0]["globalmacroid"]), held[0]["value"], time.monotonic(), 0
        if lock != seen:
            seen, since = lock, moment
            yield WAITS, f"for the provisioning of {holder}"
        elif moment - since > DEAD_SECONDS:
            give_back(api, lock)
        elif moment > deadline:
            raise ProvisionError(
                f"expected our turn within {PATIENCE_SECONDS:g} s, found others at work all the time, now {holder}"
                f" (Zabbix's global macro {MACRO}): try again later"
            )
        else:
            time.sleep(LOOK_SECONDS)


def give_back(api: Api, lock: str) -> None:
    """Also somebody else's. Where it fails the lock is gone already, or its turn is over after DEAD_SECONDS."""
    with suppress(ProvisionError):
        api.delete("usermacro.deleteglobal", lock)
