"""What a request works with: the configuration and the database, and whether the schema is the one we know."""

from __future__ import annotations

import math
from typing import cast

import sqlalchemy as sa
from flask import current_app

from contract import migrations
from contract.config import Config
from contract.database import Database
from contract.errors import DatabaseError, SchemaError, SchemaOutdated
from distribute import access
from distribute.access import Door
from distribute.cloning import Cloner
from distribute.errors import NotReady, TooManyRequests
from distribute.limits import Pace, Refusals

_NAME = "distribute"


class Context:
    """One for each process that answers requests; used by all its threads."""

    def __init__(self, config: Config, database: Database) -> None:
        self.config = config
        self.database = database
        self.door = Door(config.distribute)
        self.cloner = Cloner(config, database)
        self.refusals = Refusals()
        self._pace = Pace(config.distribute.requests_per_second)
        self._schema_was_current = False

    def change(self, config: Config) -> None:
        """From the next request on; of config only the live keys are others."""
        if config.distribute.requests_per_second != self.config.distribute.requests_per_second:
            self._pace = Pace(config.distribute.requests_per_second)
        self.config = config

    def let_in(self) -> None:
        """Make this request's client known, and count the request.

        Raises Unauthorized, Forbidden, NotReady, and TooManyRequests: nothing has been asked of the database yet.
        """
        self.door.let_in()
        client = access.client()
        name = client.address if client.name == access.ANONYMOUS else client.name
        if (seconds := self._pace.wait_seconds(name)) > 0:
            most = self.config.distribute.requests_per_second
            raise TooManyRequests(f"Expected at most {most} requests a second; nothing was done.", math.ceil(seconds))

    def require_schema(self) -> None:
        """Looked at until it is right, once. Raises NotReady when it is older or newer, DatabaseRetry."""
        if self._schema_was_current:
            return
        try:
            migrations.check(self.database)
        except SchemaOutdated as exc:
            raise NotReady("The database schema is being brought up to date; nothing was done. Try again.") from exc
        except SchemaError as exc:
            raise NotReady(f"The database cannot be used: {exc}", retry_after_seconds=60) from exc
        self._schema_was_current = True

    def missing(self) -> list[str]:
        """Sentences that say what keeps requests from being answered; empty when nothing does."""
        try:
            self.database.read(lambda connection: connection.execute(sa.select(sa.literal(1))))
            migrations.check(self.database)
        except DatabaseError as exc:
            return [f"database: {exc}"]
        return []


def bind(context: Context) -> dict[str, Context]:
    """What an application's extensions have to hold for current()."""
    return {_NAME: context}


def current() -> Context:
    """The context of the application that answers this request."""
    return cast(Context, current_app.extensions[_NAME])
