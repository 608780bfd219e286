"""A real PostgreSQL primary with replicas, as small as it can be: for tests, and for the benchmark."""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Self

import psycopg

from failover.clock import SYSTEM
from failover.databases.postgres import Postgres, PostgresConfig
from failover.lab import install

HOST = "127.0.0.1"
SECRET = "canary-" + os.urandom(9).hex()
SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
dynamic_shared_memory_type = mmap
shared_buffers = 16MB
max_connections = 40
max_wal_senders = 8
wal_keep_size = 256MB
wal_retrieve_retry_interval = 50ms
wal_sender_timeout = 5s
wal_receiver_timeout = 5s
"""


def binaries(version: int) -> Path:
    """The programs of PostgreSQL 16 or 18, as the package that carries them lays them out."""
    package = find_spec(install.PACKAGE)
    assert package
    assert package.submodule_search_locations
    return Path(next(iter(package.submodule_search_locations))) / f"pginstall{'18' if version == 18 else ''}" / "bin"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def until(condition: Any, seconds: float = 20) -> None:
    deadline = SYSTEM.monotonic() + seconds
    while not condition():
        assert SYSTEM.monotonic() < deadline, "it did not happen in time"
        SYSTEM.sleep(0.03)


class Cluster:
    """The first of `regions` is the primary, the others follow it. Every server has its own password file."""

    def __init__(self, version: int = 16, regions: Sequence[str] = ("east", "west"), segment: int = 1) -> None:
        self.segment = segment
        self.bin = binaries(version)
        self.via = install.via()
        self.home = Path(tempfile.mkdtemp(prefix="failover-pg-"))
        os.chown(self.home, *install.owner())
        if not install.runnable(self.bin, self.via):
            self.bin = install.copy(self.bin, self.home / "programs")
        self.regions = tuple(regions)
        self.ports = {region: free_port() for region in regions}
        self.password = self.home / "password"
        self.secret = SECRET
        self._write(self.password, self.secret)
        self._write(self.home / "pgpass", f"*:*:*:*:{self.secret}\n")
        template = _templates.get((version, self.regions, segment))
        try:
            self._copy(template) if template else self._create()
        except BaseException:
            self.remove()
            raise

    def data(self, region: str) -> Path:
        return self.home / region

    def config(self, **changes: Any) -> dict[str, Any]:
        """What stands under `postgres:` in a topology; `changes` replace keys of members, by region."""
        members = {
            region: {
                "host": HOST,
                "port": self.ports[region],
                "data": str(self.data(region)),
                "bin": str(self.bin),
                "via": list(self.via),
                **changes.get(region, {}),
            }
            for region in self.regions
        }
        return {
            "database": "postgres",
            "user": "failover",
            "password": {"file": str(self.password)},
            "within": "40s",
            "members": members,
            **changes.get("top", {}),
        }

    def database(self, **changes: Any) -> Postgres:
        config = PostgresConfig.model_validate(self.config(**changes))
        return Postgres("orders", config, self.regions[0], SYSTEM)

    def connect(self, region: str, **options: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=HOST,
            port=self.ports[region],
            user="failover",
            password=self.secret,
            dbname="postgres",
            autocommit=True,
            connect_timeout=3,
            client_encoding="UTF8",
            **options,
        )

    def sql(self, region: str, query: str, *values: Any) -> Any:
        with self.connect(region) as connection:
            cursor = connection.execute(query, values or None)  # type: ignore[arg-type]
            row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    def orders(self, region: str) -> set[int]:
        with self.connect(region) as connection:
            return {row[0] for row in connection.execute("SELECT id FROM orders")}

    def run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.via, str(self.bin / program), *arguments],
            cwd="/",
            env={"PATH": os.environ["PATH"], "LC_ALL": "C", "PGPASSFILE": str(self.home / "pgpass")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=check,
            timeout=60,
        )

    def start(self, region: str, wait: str = "-w") -> None:
        if not self._processes(region):
            # Left by `kill`; its process may not have been reaped yet, and PostgreSQL would take it for alive.
            self._forget(region)
        self.run("pg_ctl", "start", wait, "-D", str(self.data(region)), "-l", str(self.home / f"{region}.log"))

    def stop(self, region: str, mode: str = "fast") -> None:
        self.run("pg_ctl", "stop", "-w", "-m", mode, "-D", str(self.data(region)))

    def kill(self, region: str) -> None:
        """End every process of a server, as a power cut would."""
        self._end(region)
        until(lambda: not self._processes(region))

    def streams(self, region: str) -> bool:
        with suppress(psycopg.OperationalError):
            return bool(self.sql(region, "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'"))
        return False

    def remove(self) -> None:
        for region in self.regions:
            self._end(region)
        until(lambda: not any(self._processes(region) for region in self.regions))
        for region in self.regions:
            self._forget(region)
        shutil.rmtree(self.home, ignore_errors=True)

    def _create(self) -> None:
        first = self.regions[0]
        self.run(
            "initdb", "--no-sync", "--data-checksums", "--auth=scram-sha-256", "--username=failover",
            f"--wal-segsize={self.segment}",
            f"--pwfile={self.password}", "-D", str(self.data(first)),
        )  # fmt: skip
        self._append(first, SETTINGS)
        self._append(first, f"port = {self.ports[first]}\ncluster_name = '{first}'\n")
        self.start(first)
        # Nobody needs it, and its files are a third of what every test would copy.
        self.sql(first, "UPDATE pg_database SET datistemplate = false WHERE datname = 'template0'")
        self.sql(first, "DROP DATABASE template0")
        self.sql(first, "CREATE TABLE orders (id int PRIMARY KEY, made timestamptz DEFAULT clock_timestamp())")
        for region in self.regions[1:]:
            source = f"host={HOST} port={self.ports[first]} user=failover passfile={self.home / 'pgpass'}"
            self.run(
                "pg_basebackup", "-c", "fast", "-X", "stream", "--no-sync", "-R",
                "-d", f"{source} application_name={region}", "-D", str(self.data(region)),
            )  # fmt: skip
            self._append(region, f"port = {self.ports[region]}\ncluster_name = '{region}'\n")
            self.start(region)
            until(lambda region=region: self.streams(region))

    def _copy(self, template: "Cluster") -> None:
        """Take over a template's servers, which are shut down, under our own ports."""
        copies = [
            subprocess.Popen([*self.via, "cp", "-a", template.data(region), self.data(region)], cwd="/")
            for region in self.regions
        ]
        codes = [copy.wait() for copy in copies]
        assert not any(codes)
        for region in self.regions:
            for name in ("postgresql.conf", "postgresql.auto.conf"):
                path = self.data(region) / name
                text = path.read_text().replace(str(template.home), str(self.home))
                for other, port in template.ports.items():
                    text = text.replace(str(port), str(self.ports[other]))
                path.write_text(text)
        for region in self.regions:
            self.start(region, "-W")
        until(lambda: all(self.streams(region) for region in self.regions[1:]))
        until(lambda: not self.sql(self.regions[0], "SELECT pg_is_in_recovery()"))

    def _append(self, region: str, text: str) -> None:
        with (self.data(region) / "postgresql.conf").open("a") as file:
            file.write(text)

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o600)
        os.chown(path, *install.owner())

    def _processes(self, region: str) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and (entry / "cwd").readlink() == self.data(region):
                    found.append(int(entry.name))
        return found

    def _forget(self, region: str) -> None:
        """Remove a killed server's lock file, and its shared memory, which the kernel keeps."""
        lock = self.data(region) / "postmaster.pid"
        with suppress(OSError, IndexError):
            segment = lock.read_text().splitlines()[6].split()[1]
            subprocess.run(["ipcrm", "-m", segment], check=False, capture_output=True)
        lock.unlink(missing_ok=True)

    def _end(self, region: str) -> None:
        for pid in self._processes(region):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


_templates: dict[tuple[int, tuple[str, ...], int], Cluster] = {}


def template(version: int, regions: Sequence[str], segment: int) -> None:
    """Make the servers once that later clusters of this kind start from."""
    if (version, tuple(regions), segment) not in _templates:
        made = Cluster(version, regions, segment)
        for region in regions:
            made.stop(region)
        atexit.register(made.remove)
        _templates[version, tuple(regions), segment] = made


@contextmanager
def cluster(version: int = 16, regions: Sequence[str] = ("east", "west"), segment: int = 1) -> Iterator[Cluster]:
    """A new cluster, gone afterwards. `segment` is the size of a WAL segment in MB: small ones are copied fast."""
    template(version, regions, segment)
    made = Cluster(version, regions, segment)
    try:
        yield made
    finally:
        made.remove()


class Writer:
    """A client that writes an order every `pause` seconds, wherever it can, and retries at once under the same id."""

    def __init__(self, servers: Cluster, pause: float = 0.002) -> None:
        self.servers = servers
        self.pause = pause
        self.acknowledged: list[tuple[int, float]] = []
        self._numbers = count(1 + max(servers.orders(servers.regions[0]), default=0))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self.acknowledged)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)

    @property
    def gap(self) -> float:
        """The longest time between two acknowledged writes, in seconds."""
        times = [at for _, at in self.acknowledged]
        return max((later - earlier for earlier, later in pairwise(times)), default=0.0)

    def _run(self) -> None:
        connection: psycopg.Connection[Any] | None = None
        turn = 0
        for number in self._numbers:
            while not self._stop.is_set():
                try:
                    if connection is None:
                        connection = self.servers.connect(self.servers.regions[turn % len(self.servers.regions)])
                    connection.execute("INSERT INTO orders (id) VALUES (%s) ON CONFLICT DO NOTHING", (number,))
                except psycopg.Error:
                    if connection is not None:
                        connection.close()
                    connection = None
                    turn += 1
                    time.sleep(self.pause)
                else:
                    self.acknowledged.append((number, time.monotonic()))
                    time.sleep(self.pause)
                    break
            if self._stop.is_set():
                break
        if connection is not None:
            connection.close()
