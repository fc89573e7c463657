"""The database of a search, by URL: SQLite or PostgreSQL. No password is ever shown."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delaynet_lava.errors import DelayNetError, InputError

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from sqlalchemy import URL

__all__ = ["full_url", "open_storage", "require_optuna", "shown"]

LOCK_WAIT_S = 60
"""How long a process waits for others that write to the same SQLite file."""
CONNECT_S = 10


def require_optuna() -> None:
    """Refuse to search without Optuna.

    Raises:
        DelayNetError: it can't be imported.
    """
    try:
        import optuna
    except ImportError as error:
        raise DelayNetError(
            f"a search needs optuna, which cannot be imported ({error}): pip install 'delaynet_lava[search]'"
        ) from error
    # It tells of every trial on stderr, and so do the commands here in their own words.
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _parse(url: str) -> URL:
    import sqlalchemy

    try:
        made = sqlalchemy.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        # The message may repeat the URL, and with it a password.
        raise InputError(
            "--storage", "is not a database URL", "sqlite:///FILE or postgresql://USER@HOST/DATABASE"
        ) from None
    name = made.get_backend_name()
    if name in ("postgresql", "postgres"):
        return made.set(drivername="postgresql+psycopg")
    if name != "sqlite":
        raise InputError("--storage", f"{name!r} is not known", "use sqlite or postgresql")
    if not made.database or made.database == ":memory:":
        raise InputError("--storage", "is a database in memory, which workers cannot share", "name a file")
    return made.set(drivername="sqlite", database=str(Path(made.database).absolute()))


def full_url(url: str) -> str:
    """A URL with its driver, and with an absolute path where it names a file.

    Raises:
        InputError: it is none, or of another database.
    """
    return _parse(url).render_as_string(hide_password=False)


def shown(url: str) -> str:
    """A URL without password, as it may be printed and written.

    Raises:
        InputError: as :func:`full_url`.
    """
    made = _parse(url)
    secret = [key for key in made.query if "password" in key.lower()]
    # set(password=None) would leave the password as it is.
    return made._replace(password=None).difference_update_query(secret).render_as_string()


def _secrets(url: str) -> list[str]:
    made = _parse(url)
    values = [made.password, *(v for k, v in made.query.items() if "password" in k.lower())]
    return [str(value) for value in values if value]


def _reason(error: BaseException, url: str) -> str:
    """The first line of what the database said."""
    original = getattr(error, "orig", None) or error.__cause__ or error
    original = getattr(original, "orig", None) or original
    text = (str(original).strip() or type(original).__name__).splitlines()[0]
    for secret in _secrets(url):
        text = text.replace(secret, "***")
    return text


@contextlib.contextmanager
def open_storage(url: str) -> Iterator[RDBStorage]:
    """Optuna's storage at a URL; closed at the end.

    Raises:
        InputError: the database can't be reached, or fails while it is used.
    """
    require_optuna()
    import optuna
    import sqlalchemy.exc

    made = _parse(url)
    connect: dict[str, Any] = {"timeout": LOCK_WAIT_S}
    if made.get_backend_name() == "postgresql":
        connect = {"connect_timeout": CONNECT_S}
    # A connection that the server has dropped is replaced before it is used.
    arguments = {"connect_args": connect, "pool_pre_ping": True}
    try:
        try:
            storage = optuna.storages.RDBStorage(full_url(url), engine_kwargs=arguments)
        except sqlalchemy.exc.DBAPIError as error:
            # Of two that open an empty database at once, one makes the tables and the other one fails.
            if not isinstance(error, sqlalchemy.exc.IntegrityError) and "already exists" not in str(error):
                raise
            time.sleep(1.0)
            storage = optuna.storages.RDBStorage(full_url(url), engine_kwargs=arguments)
    except ImportError as error:
        raise InputError(
            f"--storage {shown(url)}",
            f"needs a driver that cannot be imported ({error.__cause__ or error})",
            "pip install 'delaynet_lava[search-postgresql]'",
        ) from None
    except (sqlalchemy.exc.SQLAlchemyError, RuntimeError) as error:
        # RuntimeError: tables of another release of Optuna.
        raise InputError(f"--storage {shown(url)}", f"cannot be used ({_reason(error, url)})") from None
    try:
        yield storage
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise InputError(
            f"--storage {shown(url)}", f"failed ({_reason(error, url)})", "call again to go on"
        ) from None
    finally:
        storage.remove_session()
        storage.engine.dispose()
