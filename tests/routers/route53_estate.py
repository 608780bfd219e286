"""What the route53 router's tests share: a zone on moto, the API's proxy before it, a name server behind it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import botocore.loaders
import pytest

from failover.clock import SYSTEM, Clock
from failover.routers.route53 import Route53
from failover.world import RouteState
from tests.routers.aws import KEY, Moto, NameServer, Proxy, RecordSet
from tests.routers.specs import spec

WEB, API = "web@aws", "api@aws"
NORMAL = {"east": 50, "west": 50}
ADDRESSES = {"east": "192.0.2.1", "west": "192.0.2.11"}
RECORDS = {WEB: "web.example.test.", API: "api.example.test."}
TTL = 60
LOADER = botocore.loaders.create_loader()
FULL = RouteState(NORMAL, TTL)
EASTLESS = RouteState({"east": 0, "west": 100}, TTL)


def record(name: str, region: str, weight: int = 50, **more: Any) -> RecordSet:
    own = {"Name": name, "Type": "A", "SetIdentifier": region, "Weight": weight}
    if "AliasTarget" not in more:
        own |= {"TTL": TTL, "ResourceRecords": [{"Value": ADDRESSES[region]}]}
    return own | more


def sign_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of the caller's own, and a credentials file with a profile that may and one that may not."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    # Each client would read botocore's models anew, which is most of what these tests cost.
    monkeypatch.setattr("botocore.session.create_loader", lambda _: LOADER)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    file = tmp_path / "credentials"
    file.write_text(
        f"[failover]\naws_access_key_id = {KEY}\naws_secret_access_key = {KEY}\n"
        "[stranger]\naws_access_key_id = AKIDSTRANGER\naws_secret_access_key = wrong\n"
    )
    return file


class Estate:
    """A zone of its own with its weighted records, the API in front of it, and a name server that answers from it."""

    routes = (WEB, API)
    patience = 5.0

    def __init__(self, moto: Moto, credentials: Path, *, strict: bool = True) -> None:
        self.moto = moto
        self.credentials = credentials
        self.zone = moto.zone()
        moto.put(self.zone, *(record(name, region) for name in RECORDS.values() for region in NORMAL))
        self.proxy = Proxy(moto, strict=strict)
        self.mode = "exact" if strict else "reread"
        self.names = NameServer(lambda: moto.records(self.zone))
        self._made: list[Route53] = []

    def make(self, **settings: Any) -> Route53:
        return self.router(RECORDS, **settings)

    def router(
        self,
        records: Mapping[str, str],
        weights: Mapping[str, int] = NORMAL,
        clock: Clock = SYSTEM,
        own: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Route53:
        config = Route53.Config.model_validate(
            {
                "zone": self.zone,
                "endpoint": self.proxy.endpoint,
                "profile": "failover",
                "credentials_file": str(self.credentials),
                "compare_and_set": self.mode,
                "name_servers": [self.names.address],
                "connect_timeout": "1s",
                "read_timeout": "5s",
                "dns_timeout": "500ms",
                "retry_for": "10s",
                "pace": {"rate": 1000, "burst": 1000},
                **settings,
            }
        )
        routes = {
            route: spec(route, Route53.RouteConfig.model_validate({"record": name, **(own or {})}), weights)
            for route, name in records.items()
        }
        made = Route53("aws", config, routes, clock)
        self._made.append(made)
        return made

    def stranger(self) -> Route53:
        return self.make(profile="stranger")

    def meddle(self, route: str) -> None:
        self.moto.put(self.zone, record(RECORDS[route], "east", 10))

    def stop(self) -> None:
        self.proxy.stop()

    def start(self) -> None:
        self.proxy.start()

    def close(self) -> None:
        self.proxy.stop()
        self.names.close()

    def weights(self, route: str = WEB) -> dict[str, int]:
        found = self.moto.records(self.zone)
        return {each["SetIdentifier"]: each["Weight"] for each in found if each["Name"] == RECORDS[route]}
