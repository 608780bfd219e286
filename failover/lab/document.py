"""The `failover.yaml` that describes a laboratory to the product."""

import sys
from typing import Any

import yaml

from failover.lab import postgres, zone
from failover.lab.state import LOOPBACK, Lab, Region

CAPACITY = 200
LOAD = 60


def write(lab: Lab) -> None:
    """Write the topology, whole or not at all."""
    new = lab.topology.with_suffix(".new")
    new.write_text(yaml.safe_dump(topology(lab), sort_keys=False, default_flow_style=None, width=110))
    new.replace(lab.topology)


def topology(lab: Lab) -> dict[str, Any]:
    """The laboratory in the words of a topology file."""
    regions = lab.regions.values()
    shop = f"http://${{address}}:{lab.shop_port}"
    return {
        "topology": "shop-lab",
        "regions": {region.name: {"address": region.address} for region in regions},
        "services": {
            "web": {
                "routes": [
                    {
                        "router": "dns",
                        "record": zone.RECORD,
                        "type": "A",
                        "ttl": f"{zone.TTL}s",
                        "weights": {region.name: zone.WEIGHT for region in regions},
                    }
                ],
                "capacity": {region.name: CAPACITY for region in regions},
                "load": LOAD,
                "checks": {
                    "live": {"http": {"url": f"{shop}/live"}},
                    "orders": {"http": {"url": f"{shop}/health"}, "needs": ["orders"]},
                },
            }
        },
        "databases": {
            "orders": {
                "primary": next(iter(lab.regions)),
                "postgres": {
                    "database": postgres.DATABASE,
                    "user": postgres.SUPERUSER,
                    "password": {"file": str(lab.secret(postgres.SUPERUSER))},
                    "within": "60s",
                    "members": {region.name: _member(lab, region) for region in regions},
                },
            }
        },
        "routers": {
            "dns": {
                "route53": {
                    "zone": lab.zone,
                    "endpoint": lab.endpoint,
                    "region": zone.SIGNING_REGION,
                    "credentials_file": str(lab.credentials),
                    "profile": zone.PROFILE,
                    "name_servers": [f"{LOOPBACK}:{lab.dns_port}"],
                    "read_timeout": "3s",
                    "retry_for": "5s",
                }
            }
        },
        "drain": {"ttl": "2s", "stages": [50, 0], "soak": "1s"},
        "objectives": {"survivors": 1, "lag": "10s"},
        "store": {"sqlite": {"path": str(lab.directory / "journal.db")}},
    }


def _member(lab: Lab, region: Region) -> dict[str, Any]:
    return {
        "host": region.address,
        "port": lab.postgres_port,
        "data": str(region.data),
        "bin": str(lab.binaries),
        "via": list(lab.via),
        "fence": [sys.executable, "-m", "failover.lab.fence", str(lab.directory), region.name],
    }
