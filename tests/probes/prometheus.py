"""A real Prometheus that scrapes one target, or nothing."""

import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self

import urllib3

from tests.parts import program
from tests.probes.servers import free_port
from tests.routers.specs import LOOPBACK, until


class Prometheus:
    """Ready on entering, gone on leaving. `target` is a port on loopback, looked at ten times a second."""

    def __init__(self, home: Path, target: int | None = None) -> None:
        port = free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        jobs = f"[{{job_name: t, static_configs: [{{targets: ['{LOOPBACK}:{target}']}}]}}]" if target else "[]"
        interval = "100ms" if target else "1h"
        (home / "prometheus.yml").write_text(
            f"global: {{scrape_interval: {interval}, scrape_timeout: {interval}}}\nscrape_configs: {jobs}\n"
        )
        self._log = home / "prometheus.log"
        self._argv = [
            program("prometheus", "prometheus"),
            f"--config.file={home / 'prometheus.yml'}",
            f"--storage.tsdb.path={home / 'prometheus'}",
            f"--web.listen-address={LOOPBACK}:{port}",
        ]

    def __enter__(self) -> Self:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(self._argv, stdout=log, stderr=log)
        try:
            until(self._ready, 30, "Prometheus")
        except AssertionError as error:
            self.__exit__()
            raise AssertionError(f"{error}: {self._log.read_text()[-1000:]}") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)

    def _ready(self) -> bool:
        with suppress(urllib3.exceptions.HTTPError):
            return urllib3.request("GET", f"{self.url}/-/ready", timeout=1, retries=False).status == 200
        return False
