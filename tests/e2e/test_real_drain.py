"""What must hold of a drain on a bad day, on real HAProxy and BIND servers that are under load."""

import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.opcode
import dns.query
import pytest

from tests.e2e.laboratory import ended, events, last_run, made
from tests.e2e.onprem import CHAT, NORMAL, Site, Topology, Visitors, answered, site, tell, watched
from tests.e2e.product import until
from tests.routers.bind import SECONDARY, ZONE, Named
from tests.routers.specs import LOOPBACK, free_port
from tests.routers.unbound import Unbound

DRAIN = ("run", "drain", "-i", "region=east", "--yes")
OUT = {"web@edge": {"east": 0, "west": 200}, "chat@dns": {"east": 0, "west": 100}}
SOAKING = "soak after drain east to 50 %"
QUARTER = {"web@edge": {"east": 25, "west": 175}, "chat@dns": {"east": 15, "west": 85}}
HALF = {"web@edge": {"east": 50, "west": 150}, "chat@dns": {"east": 30, "west": 70}}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("drain")) as made:
        yield made


@pytest.fixture
def here(running: Site) -> Site:
    running.normal()
    settled(running, NORMAL)
    return running


def settled(here: Site, wanted: dict[str, dict[str, int]]) -> None:
    """Wait until the secondary has it too."""

    def so() -> bool:
        try:
            return here.weights() == wanted
        except ValueError:
            return False

    until(so, 20, f"{wanted}")


def stages(*percents: int) -> Callable[[Topology], None]:
    def edit(topology: Topology) -> None:
        topology["drain"]["stages"] = list(percents)

    return edit


def long(topology: Topology) -> None:
    topology["drain"]["soak"] = "10min"


def patient(topology: Topology) -> None:
    topology["drain"]["hold"] = "10min"


# --- under load ---


def test_no_request_fails_all_through_a_staged_drain_and_restore(tmp_path: Path, here: Site) -> None:
    topology = here.topology(tmp_path, stages(75, 50, 25, 0))
    with Visitors([edge.front for edge in here.edges]).open() as visitors:
        tell(topology, *DRAIN)
        gone = time.monotonic()
        assert here.weights() == OUT
        until(lambda: sum(visitors.regions(gone, time.monotonic()).values()) > 40, 20, "40 requests")
        without = time.monotonic()
        tell(topology, "run", "restore", "-i", "region=east", "--yes")
        assert here.weights() == NORMAL
    assert visitors.failed == []
    assert set(visitors.regions(gone, without)) == {"west"}
    soaked = [event["what"] for event in events(topology, kind="check") if "restore east to" in event["what"]]
    assert len(soaked) >= 4


# --- a survivor at its limit ---

LIMIT = 80
"""The weight of one of west's servers above which west is pushed too far; half of the way out it has 75."""


def sicken(here: Site, status: int, limit: int = LIMIT) -> None:
    edge = here.edges[0]
    here.shops["west"].health = lambda: status if edge.weights("web")["west1"] > limit else 200


def on_fail(what: str) -> Callable[[Topology], None]:
    def edit(topology: Topology) -> None:
        topology["drain"] |= {"on_fail": what, "hold": "300ms", "soak": "300ms"}

    return edit


@pytest.mark.parametrize(
    ("status", "on_failure", "stands"),
    [
        (503, "pause", "weights stay as they are"),
        (0, "pause", "weights stay as they are"),
        (503, "step-back", "those of the stage before"),
    ],
    ids=["failing", "silent", "failing, a step back"],
)
def test_a_survivor_that_is_pushed_too_far_halts_the_ramp(
    status: int, on_failure: str, stands: str, tmp_path: Path, here: Site
) -> None:
    """The stage that was too much stands where the ramp pauses; a step back ends at the one that was well."""
    topology = here.topology(tmp_path, stages(75, 50, 25, 0), on_fail(on_failure))
    sicken(here, status)
    stopped = tell(topology, *DRAIN, code=6)
    assert "after drain east to 25 %" in stopped.said
    assert f"http://{LOOPBACK}:{here.shops['west'].port}/health" in stopped.said
    assert stands in stopped.said
    settled(here, QUARTER if on_failure == "pause" else HALF)
    run = last_run(topology)
    here.shops["west"].health = lambda: 200
    tell(topology, "resume", run, "--yes")
    assert here.weights() == OUT
    ended(topology)


@pytest.mark.parametrize("status", [503, 0], ids=["failing", "silent"])
def test_the_last_healthy_region_is_not_drained(status: int, tmp_path: Path, here: Site) -> None:
    """Neither by the runbook, which looks at the survivors first, nor by the step alone, nor where that is waived."""
    topology, book = here.topology(tmp_path), tmp_path / "book.yaml"
    book.write_text("runbook: book\nsteps: [{id: leave, drain: {region: east}}]\n")
    sicken(here, status, -1)
    serials = [answered(server.port, ZONE, "SOA") for server in (here.bind.primary, here.bind.secondary)]
    waive = ("--accept", "target-health", "--reason", "a test says so")
    assert "west cannot be counted on" in tell(topology, *DRAIN, code=1).said
    for words in (("run", str(book), "--yes"), ("run", str(book), "--yes", *waive)):
        refused = tell(topology, *words, code=3)
        assert "nothing was changed" in refused.said
    assert "last-region" in refused.said
    assert here.weights() == NORMAL
    assert [answered(server.port, ZONE, "SOA") for server in (here.bind.primary, here.bind.secondary)] == serials


# --- other people ---


def test_of_two_operators_at_once_one_wins_and_the_other_is_told(tmp_path: Path, here: Site) -> None:
    topology = here.topology(tmp_path, long)
    with watched(topology, *DRAIN) as one, watched(topology, *DRAIN) as other:
        until(lambda: one.process.poll() is not None or other.process.poll() is not None, what="the end of one")
        loser, winner = (one, other) if one.process.poll() is not None else (other, one)
        told = loser.end(5)
        winner.says(SOAKING)
        winner.send(signal.SIGINT)
        winner.end(6)
    [run] = [each["run"] for each in tell(topology, "runs", "--json").json["runs"] if each["status"] == "stopped"]
    by = events(topology, run, "run-started")[0]["owner"]
    who = re.escape(f"region east is held by run {run}, by {by['by']} on {by['host']} since ")
    assert re.search(rf"{who}\d{{4}}-\d\d-\d\dT\d\d:\d\d", told.said), told.said
    settled(here, HALF)
    assert len(made(topology, run)) == 2, "one stage of two routes, once"


def by_hand_edge(here: Site) -> dict[str, int]:
    for edge in here.edges:
        edge.tell("set weight web/east1 10", "set weight web/east2 10")
    return {"east": 20, "west": 150}


def by_hand_dns(here: Site) -> dict[str, int]:
    here.chat(31, 69)
    return {"east": 31, "west": 69}


@pytest.mark.parametrize(
    ("route", "by_hand"), [("web@edge", by_hand_edge), ("chat@dns", by_hand_dns)], ids=["haproxy", "bind"]
)
def test_what_somebody_sets_between_plan_and_write_is_not_overwritten(
    route: str, by_hand: Callable[[Site], dict[str, int]], tmp_path: Path, here: Site
) -> None:
    """The first stage is held by an unknown check until somebody has been faster than the second."""
    topology = here.topology(tmp_path, patient)
    sicken(here, 0, 60)
    with watched(topology, *DRAIN) as running:
        running.says("hold: ")
        found = by_hand(here)
        here.shops["west"].health = lambda: 200
        done = running.end(3)
    assert f"route {route} was to go from" in done.said
    assert ", ".join(f"{region} {weight}" for region, weight in found.items()) in done.said
    other = next(each for each in OUT if each != route)
    settled(here, {route: found, other: OUT[other]})


def test_undo_leaves_what_somebody_has_changed_since_and_names_it(tmp_path: Path, here: Site) -> None:
    topology = here.topology(tmp_path, stages(0))
    tell(topology, *DRAIN)
    run = last_run(topology)
    here.chat(7, 93)
    done = tell(topology, "undo", run, "--yes", code=1)
    assert "route chat@dns is left as it is" in done.said
    assert "now it is east 7, west 93" in done.said
    settled(here, {"web@edge": NORMAL["web@edge"], "chat@dns": {"east": 7, "west": 93}})
    ended(topology)


# --- DNS that lags behind ---


def test_a_stale_secondary_is_waited_for_and_named(tmp_path: Path, here: Site) -> None:
    """Nobody tells this one of changes, so it stays at what it had at its start."""
    port = free_port()
    zone = SECONDARY.format(zone=ZONE, file=tmp_path / "stale.zone", primary=here.bind.primary.port)
    stale = Named(tmp_path / "stale", port, zone)

    def with_it(topology: Topology) -> None:
        topology["routers"]["dns"]["rfc2136"]["name_servers"].append(f"{LOOPBACK}:{port}")
        topology["drain"] |= {"settle": "4s"}

    topology = here.topology(tmp_path, with_it)
    stale.start()
    try:
        assert here.shares(port) == NORMAL["chat@dns"]
        stopped = tell(topology, *DRAIN, code=6)
        assert "settling: " in stopped.said, "it was waited for"
        assert f"{LOOPBACK}:{port}" in stopped.said.partition("the routers do not all answer")[2]
        assert f"{LOOPBACK}:{here.bind.secondary.port}" not in stopped.said.partition("do not all answer")[2]
        settled(here, HALF)
        run = last_run(topology)
        with watched(topology, "resume", run, "--yes") as running:
            until(lambda: _notified(port, running.process.poll), what="its end")
            running.end(0)
        assert here.weights() == OUT
        assert here.shares(port) == {"west": 100}
    finally:
        stale.stop()


def _notified(port: int, ended: Callable[[], int | None]) -> bool:
    """Tell the stale one of the zone, as its primary would (RFC 1996), until the run is over."""
    notify = dns.message.make_query(ZONE, "SOA")
    notify.set_opcode(dns.opcode.NOTIFY)
    notify.flags |= dns.flags.AA
    notify.flags &= ~dns.flags.RD
    dns.query.udp(notify, LOOPBACK, 2, port)
    return ended() is not None


def test_a_resolver_that_stretches_ttls_stays_in_the_record(tmp_path: Path, here: Site) -> None:
    resolver = Unbound(tmp_path / "unbound", here.bind.primary.port, ["cache-min-ttl: 300"])

    def with_it(topology: Topology) -> None:
        topology["routers"]["dns"]["rfc2136"]["resolvers"] = [f"{LOOPBACK}:{resolver.port}"]
        topology["drain"] |= {"stages": [0], "tail": "300ms"}

    topology = here.topology(tmp_path, with_it)
    resolver.start()
    try:
        assert len(answered(resolver.port, CHAT, "SRV")) == 2
        tell(topology, *DRAIN)
        assert len(answered(resolver.port, CHAT, "SRV")) == 2, "it still has both"
        shown = tell(topology, "show", last_run(topology))
        assert f"chat@dns: resolver {LOOPBACK}:{resolver.port} does not yet: " in shown.said
        [late] = [event["late"] for event in events(topology, kind="converged") if "chat@dns" in event["routes"]]
        [why] = late[f"resolver {LOOPBACK}:{resolver.port}"]
        assert re.search(rf"still answers east\.{ZONE}:5222, which is east; its cache keeps it for (29\d|300) s", why)
    finally:
        resolver.stop()
    assert here.weights() == OUT
