"""PostgreSQL in each region: created, replicated and started as a person would do it by hand."""

import os
import secrets
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from failover.errors import Failed
from failover.lab import install, process
from failover.lab.state import Lab, Region

DATABASE = "shop"
PROGRAMS = frozenset({b"postgres", b"initdb", b"pg_basebackup", b"pg_rewind", b"pg_ctl"})
SUPERUSER = "failover"
APPLICATION = "shop"
REPLICATOR = "replicator"

# The region's own settings lie beside the data directory: pg_rewind overwrites what is in it with the other's.
SHARED = """
include '../region.conf'
wal_level = replica
hot_standby = on
full_page_writes = on
wal_keep_size = 512MB
wal_retrieve_retry_interval = 200ms
wal_receiver_status_interval = 1s
wal_receiver_timeout = 5s
wal_sender_timeout = 5s
max_wal_senders = 8
max_connections = 60
shared_buffers = 16MB
unix_socket_directories = ''
dynamic_shared_memory_type = mmap
logging_collector = on
log_filename = 'postgres.log'
log_line_prefix = '%m [%p] %u '
"""
ACCESS = """
host all all 127.0.0.0/8 scram-sha-256
host replication all 127.0.0.0/8 scram-sha-256
"""


def conninfo(lab: Lab, region: Region, user: str, database: str = DATABASE) -> str:
    """How `user` reaches a region's PostgreSQL, with the password."""
    return make_conninfo(
        host=region.address, port=lab.postgres_port, user=user, password=lab.secret(user).read_text(),
        dbname=database, connect_timeout=3, sslmode="disable", gssencmode="disable", target_session_attrs="any",
    )  # fmt: skip


@contextmanager
def connected(lab: Lab, region: Region, database: str = DATABASE) -> Iterator[psycopg.Connection]:
    """A connection as the superuser, each statement on its own."""
    with psycopg.connect(conninfo(lab, region, SUPERUSER, database), autocommit=True) as connection:
        yield connection


def ask(lab: Lab, region: Region, question: LiteralString, *values: str) -> object:
    """The first value of the first row, or None where the server does not answer or has no row."""
    try:
        with connected(lab, region) as connection:
            row = connection.execute(question, values).fetchone()
    except psycopg.Error:
        return None
    return row[0] if row else None


def create_primary(lab: Lab, region: Region) -> None:
    """A new cluster with the shop's table in it."""
    for name in (SUPERUSER, APPLICATION, REPLICATOR):
        _private(lab.secret(name), secrets.token_urlsafe(24))
    _home(lab, region)
    password = region.home / "initdb.password"
    _private(password, lab.secret(SUPERUSER).read_text())
    install.hand_over(password)
    _run(
        lab, region, "initdb", "--no-sync", "--no-instructions", "--data-checksums", "--encoding=UTF8", "--locale=C",
        "--auth=scram-sha-256", f"--username={SUPERUSER}", f"--pwfile={password}", "-D", str(region.data),
    )  # fmt: skip
    password.unlink()
    with (region.data / "postgresql.conf").open("a") as file:
        file.write(SHARED)
    (region.data / "pg_hba.conf").write_text(ACCESS)
    start(lab, region)
    with connected(lab, region, "postgres") as connection:
        for name, rights in ((APPLICATION, sql.SQL("LOGIN")), (REPLICATOR, sql.SQL("LOGIN REPLICATION"))):
            role = sql.SQL("CREATE ROLE {} {} PASSWORD {}")
            connection.execute(role.format(sql.Identifier(name), rights, lab.secret(name).read_text()))
        database = sql.SQL("CREATE DATABASE {} OWNER {}")
        connection.execute(database.format(sql.Identifier(DATABASE), sql.Identifier(APPLICATION)))
    with connected(lab, region) as connection:
        connection.execute(
            "CREATE TABLE orders (id text PRIMARY KEY, region text, created timestamptz DEFAULT now())"
        )
        connection.execute(sql.SQL("ALTER TABLE orders OWNER TO {}").format(sql.Identifier(APPLICATION)))


def create_replica(lab: Lab, region: Region, primary: Region) -> None:
    """A streaming copy of `primary`, taken while it runs."""
    _home(lab, region)
    source = make_conninfo(
        host=primary.address, port=lab.postgres_port, user=REPLICATOR, passfile=str(region.home / "pgpass"),
        sslmode="disable", gssencmode="disable",
    )  # fmt: skip
    _run(
        lab, region, "pg_basebackup", "-d", source, "-X", "stream", "-c", "fast", "--no-sync",
        "-D", str(region.data),
    )  # fmt: skip
    become_standby(region)
    start(lab, region)
    streams = "SELECT state FROM pg_stat_replication WHERE application_name = %s AND state = 'streaming'"
    if not process.until(lambda: ask(lab, primary, streams, region.name) is not None, 30, 0.05):
        raise Failed(f"{region.name} does not stream from {primary.name}", where=said(lab, region))


def become_standby(region: Region) -> None:
    """Whoever starts this data directory from now on gets a read-only standby."""
    marker = region.data / "standby.signal"
    marker.touch(0o600)
    install.hand_over(marker)
    for path in (marker, region.data):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def start(lab: Lab, region: Region) -> None:
    """Start a region's PostgreSQL as what it is on disk and wait until it answers."""
    clear(lab, region)
    part = f"postgres-{region.name}"
    argv = [*lab.via, str(lab.binaries / "postgres"), "-D", str(region.data)]
    server = process.spawn(lab.directory, part, argv, lab.log(part))

    def settled() -> bool:
        return not process.alive(server) or answers(lab, region)

    if not process.until(settled, 30, 0.05) or not process.alive(server):
        raise Failed(f"PostgreSQL in {region.name} does not answer", where=said(lab, region))


def answers(lab: Lab, region: Region) -> bool:
    """Whether a region's PostgreSQL takes connections, as primary or as replica."""
    try:
        with connected(lab, region, "postgres"):
            return True
    except psycopg.Error:
        return False


def stored_orders(lab: Lab) -> frozenset[str]:
    """The ids of the orders in the one database that takes writes now."""
    writable = [
        region
        for region in lab.regions.values()
        if ask(lab, region, "SELECT current_setting('transaction_read_only')") == "off"
    ]
    if len(writable) != 1:
        names = " and ".join(region.name for region in writable) or "no region"
        raise Failed(f"{names} has a PostgreSQL that takes writes", where=str(lab.directory))
    with connected(lab, writable[0]) as connection:
        return frozenset(row[0] for row in connection.execute("SELECT id FROM orders"))


def running(region: Region) -> list[process.Process]:
    """The processes of a region's PostgreSQL, whoever started them, server first."""
    return process.serving(region.data)


def using(region: Region) -> list[process.Process]:
    """The same, and whatever else of PostgreSQL works on the region's data directory."""
    return process.serving(region.data, PROGRAMS)


def kill(lab: Lab, region: Region) -> int:
    """End a region's PostgreSQL as a power cut would, and return how many processes died."""
    died = process.end(lambda: running(region), signal.SIGKILL)
    clear(lab, region)
    return died


def clear(lab: Lab, region: Region) -> None:
    """Remove what a killed server left: its shared memory in the kernel, and its lock file.

    The next server would refuse to start while the number in that file belongs to anybody, be it to the dead
    one that nobody has reaped, as in a container without an init.
    """
    lock = region.data / "postmaster.pid"
    if running(region) or not lock.exists():
        return
    with suppress(OSError, IndexError, ValueError):
        key, number = lock.read_text().splitlines()[6].split()
        _forget_memory(lab, key, number)
    lock.unlink(missing_ok=True)


def said(lab: Lab, region: Region) -> str:
    """The last lines of a server's own logs."""
    logs = (region.home / "log" / "postgres.log", lab.log(f"postgres-{region.name}"))
    return process.tail("\n".join(path.read_text(errors="replace") for path in logs if path.exists()))


def _forget_memory(lab: Lab, key: str, number: str) -> None:
    attached = 6
    for line in (process.PROC / "sysvipc" / "shm").read_text().splitlines()[1:]:
        segment = line.split()
        left = segment[:2] == [key, number] and segment[attached] == "0"
        if left and (ipcrm := shutil.which("ipcrm")):
            # Somebody else may have removed it meanwhile.
            with suppress(Failed):
                process.run(lab.directory, "ipcrm", [*lab.via, ipcrm, "-m", number])


def _home(lab: Lab, region: Region) -> None:
    region.home.mkdir(mode=0o700)
    install.hand_over(region.home)
    passfile = region.home / "pgpass"
    _private(passfile, f"*:*:*:{REPLICATOR}:{lab.secret(REPLICATOR).read_text()}\n")
    install.hand_over(passfile)
    other = next(other for other in lab.regions.values() if other != region)
    source = make_conninfo(
        host=other.address, port=lab.postgres_port, user=REPLICATOR, passfile=str(passfile),
        application_name=region.name, sslmode="disable", gssencmode="disable",
    )  # fmt: skip
    settings = {
        "listen_addresses": region.address,
        "port": str(lab.postgres_port),
        "cluster_name": region.name,
        "log_directory": str(region.home / "log"),
        "primary_conninfo": source,
    }
    configuration = region.home / "region.conf"
    _private(configuration, "".join(f"{name} = {_quoted(value)}\n" for name, value in settings.items()))
    install.hand_over(configuration)


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _private(path: os.PathLike[str], text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def _run(lab: Lab, region: Region, program: str, *arguments: str) -> None:
    process.run(lab.directory, f"{program}-{region.name}", [*lab.via, str(lab.binaries / program), *arguments])
