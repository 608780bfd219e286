"""All checks of the topology here, once, by the product's own path; prints the seconds and the MB."""

import sys
import time
from pathlib import Path

from peak import megabytes

from failover.health import check_ids
from failover.registry import open_estate
from failover.yaml import load

estate = open_estate(load(Path("failover.yaml")))
topology = estate.topology
checks = check_ids(topology, topology.services, topology.regions)
began = time.perf_counter()
found = estate.look(checks)
took = time.perf_counter() - began
if len(found) != int(sys.argv[1]) or not all(verdict.passed for verdict in found.values()):
    sys.exit(next(f"{check}: {verdict}" for check, verdict in found.items() if not verdict.passed))
print(took, megabytes())
