"""The haproxy router against real HAProxy processes, by UNIX socket and by TCP."""

import fcntl
import os
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from failover.clock import SYSTEM
from failover.errors import Conflict, Failed, Indeterminate, Refused
from failover.ports import SupportsConnections, SupportsRemarks, SupportsWeights
from failover.routers._haproxy_servers import Server, spread
from failover.routers.haproxy import Haproxy as Router
from failover.testing.routers import RouterContract, change, state
from failover.world import RouteState, Unknown
from tests.routers.haproxies import Haproxy, Proxy, Shop, shops
from tests.routers.specs import LOOPBACK, free_port, spec, until

WEB, API = "web@edge", "api@edge"
NORMAL = {"east": 100, "west": 100}
SERVERS = {WEB: {"east": ["e1", "e2"], "west": ["w1"]}, API: {"east": ["east-*"], "west": ["west-*"]}}
FULL = RouteState(NORMAL)
EASTLESS = RouteState({"east": 0, "west": 200})
BACKENDS = """
backend web
    balance roundrobin
    server e1 127.0.0.1:{east} weight 75
    server e2 127.0.0.1:{east} weight 25
    server w1 127.0.0.1:{west} weight 100
    server sorry 127.0.0.1:{west} backup
backend api
    balance leastconn
    server east-1 127.0.0.1:{east} weight 40
    server east-2 127.0.0.1:{east} weight 60
    server west-1 127.0.0.1:{west} weight 100
backend fixed
    balance static-rr
    server e1 127.0.0.1:{east} weight 100
    server w1 127.0.0.1:{west} weight 100
frontend web
    bind 127.0.0.1:{front}
    default_backend web
"""
RESET = [
    *("set weight web/e1 75", "set weight web/e2 25", "set weight web/w1 100", "set weight api/east-1 40"),
    *("set weight api/east-2 60", "set weight api/west-1 100", "set weight fixed/e1 100", "set weight fixed/w1 100"),
    *(f"set server {name} state ready" for name in ("web/e1", "web/e2", "web/w1", "web/sorry")),
]


@pytest.fixture(scope="module")
def both() -> Iterator[Mapping[str, Shop]]:
    with shops("east", "west") as made:
        yield made


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory, both: Mapping[str, Shop]) -> Iterator[list[Haproxy]]:
    home = tmp_path_factory.mktemp("haproxy")
    made = []
    try:
        for name in ("a", "b"):
            ports = {"east": both["east"].port, "west": both["west"].port, "front": free_port()}
            made.append(Haproxy(home / name, BACKENDS.format(**ports)))
            made[-1].start()
        yield made
    finally:
        for each in made:
            each.stop()


@pytest.fixture
def pair(processes: list[Haproxy]) -> list[Haproxy]:
    for each in processes:
        (each.home / "saved").unlink(missing_ok=True)
        each.tell(*RESET)
    return processes


@pytest.fixture
def one(pair: list[Haproxy]) -> Haproxy:
    return pair[0]


@pytest.fixture
def proxy(one: Haproxy) -> Iterator[Proxy]:
    made = Proxy(one.socket)
    yield made
    made.close()


def router(
    *instances: str | int, servers: Mapping[str, Any] = SERVERS, switch: bool = False, **config: Any
) -> Router:
    where = [f"{LOOPBACK}:{at}" if isinstance(at, int) else at for at in instances]
    made = Router.Config.model_validate({"instances": where, "timeout": "1s", **config})
    routes = {}
    for route, named in servers.items():
        own = {
            "backend": route.partition("@")[0],
            "servers": named,
            "others": ["sorry"] if route == WEB else [],
            "switch": switch,
        }
        routes[route] = spec(route, Router.RouteConfig.model_validate(own), NORMAL, None)
    return Router("edge", made, routes, SYSTEM)


class HaproxyHarness:
    routes = (WEB, API)
    patience = 1.0

    def __init__(self, processes: Sequence[Haproxy], *, tcp: bool) -> None:
        self.processes = processes
        self.instances = [each.port if tcp and at % 2 == 0 else each.socket for at, each in enumerate(processes)]

    def make(self) -> Router:
        return router(*self.instances)

    def stranger(self) -> Router:
        return router(*(each.operator for each in self.processes))

    def meddle(self, route: str) -> None:
        names = {WEB: "web/w1", API: "api/west-1"}
        for each in self.processes:
            each.tell(f"set weight {names[route]} 30")

    def stop(self) -> None:
        self.processes[-1].stop()

    def start(self) -> None:
        self.processes[-1].start()


class TestContract(RouterContract):
    @pytest.fixture(params=["one socket", "one port", "two of both"])
    def harness(self, request: pytest.FixtureRequest, pair: list[Haproxy]) -> HaproxyHarness:
        return HaproxyHarness(pair[: 2 if "two" in request.param else 1], tcp=request.param != "one socket")


class TestContractSwitch(RouterContract):
    """The same where a static balance algorithm allows on and off only."""

    @pytest.fixture
    def harness(self, one: Haproxy) -> HaproxyHarness:
        class Harness(HaproxyHarness):
            def make(self) -> Router:
                return router(*self.instances, switch=True)

            def meddle(self, route: str) -> None:
                names = {WEB: "web/w1", API: "api/west-1"}
                one.tell(f"set weight {names[route]} 0")

        return Harness([one], tcp=False)


def test_is_what_it_says(one: Haproxy) -> None:
    made = router(one.socket)
    assert isinstance(made, SupportsWeights)
    assert isinstance(made, SupportsConnections)
    assert isinstance(made, SupportsRemarks)
    assert made.weight_limit(WEB) == 256
    assert router(one.socket, switch=True).weight_limit(WEB) == 0


def test_a_region_s_weight_is_spread_as_haproxy_cfg_has_it_and_comes_back_exactly(one: Haproxy) -> None:
    made = router(one.socket)
    for after, servers in (
        (RouteState({"east": 50, "west": 150}), {"e1": 38, "e2": 12, "w1": 150}),
        (RouteState({"east": 1, "west": 199}), {"e1": 1, "e2": 0, "w1": 199}),
        (EASTLESS, {"e1": 0, "e2": 0, "w1": 200}),
        (FULL, {"e1": 75, "e2": 25, "w1": 100}),
    ):
        made.write([change(WEB, state(made, WEB), after)])
        assert one.weights("web") == {**servers, "sorry": 1}
        assert state(made, WEB) == after


@pytest.mark.parametrize(
    ("weight", "initials", "shares"),
    [
        (100, [75, 25], [75, 25]),
        (0, [75, 25], [0, 0]),
        (10, [1, 1, 1], [4, 3, 3]),
        (7, [0, 0], [4, 3]),
        (5, [1, 0, 1], [3, 0, 2]),
        (1000, [100] * 10, [100] * 10),
    ],
)
def test_spread(weight: int, initials: list[int], shares: list[int]) -> None:
    servers = [Server(str(at), 0, initial, 0, True) for at, initial in enumerate(initials)]
    assert list(spread(weight, servers).values()) == shares


def test_raises_before_it_lowers(proxy: Proxy) -> None:
    made = router(proxy.port)
    made.write([change(WEB, FULL, EASTLESS)])
    [line] = [text.decode().strip() for text in proxy.lines if b"set weight" in text]
    show = "show servers state web"
    assert line.split(";") == [show, "set weight web/w1 200", "set weight web/e1 0", "set weight web/e2 0", show]


HAND = [
    ("set server web/e1 state maint", FULL, "web/e1 is in maintenance"),
    ("set server web/e1 state drain", FULL, "web/e1 is in drain state"),
    (
        "set server web/e1 state drain;set server web/e2 state maint",
        RouteState({"east": 0, "west": 100}),
        "web/e1 is in drain state; web/e2 is in maintenance",
    ),
    ("set weight web/e1 0;set weight web/e2 0", RouteState({"east": 0, "west": 100}), ""),
]


@pytest.mark.parametrize(("told", "reads", "words"), HAND)
def test_what_people_set_reads_as_what_it_is(one: Haproxy, told: str, reads: RouteState, words: str) -> None:
    one.tell(told)
    made = router(one.socket)
    assert state(made, WEB) == reads
    verdict = made.settled(WEB, reads, "")
    assert verdict.passed
    assert words in verdict.evidence[0]


def test_a_drain_and_a_restore_leave_somebody_s_maintenance_alone(one: Haproxy) -> None:
    one.tell("set server web/e1 state maint")
    made = router(one.socket)
    made.write([change(WEB, FULL, EASTLESS)])
    made.write([change(WEB, EASTLESS, FULL)])
    assert one.weights("web")["e1"] == 75
    assert "MAINT" in next(row for row in one.tell("show stat web 4 -1").splitlines() if row.startswith("web,e1,"))


@pytest.mark.parametrize("how", ["maint", "drain"])
def test_a_region_that_people_hold_off_is_not_brought_back(one: Haproxy, how: str) -> None:
    made = router(one.socket)
    made.write([change(WEB, FULL, EASTLESS)])
    one.tell(f"set server web/e1 state {how};set server web/e2 state {how}")
    assert state(made, WEB) == EASTLESS
    with pytest.raises(Failed) as failed:
        made.write([change(WEB, EASTLESS, FULL)])
    assert "east cannot take traffic" in failed.value.what
    assert "nothing was written" in failed.value.what
    assert "set server web/SERVER state ready" in failed.value.next
    assert one.weights("web") == {"e1": 0, "e2": 0, "w1": 200, "sorry": 1}


def test_the_last_region_that_can_take_traffic_is_not_drained(one: Haproxy) -> None:
    one.tell("set server web/w1 state maint")
    made = router(one.socket)
    before = state(made, WEB)
    assert before == RouteState({"east": 100, "west": 0})
    with pytest.raises(Refused) as refused:
        made.write([change(WEB, before, RouteState({"east": 0, "west": 0}))])
    assert refused.value.guard == "all-weights-zero"


@pytest.mark.parametrize(
    ("told", "words"),
    [("set weight web/e1 10", "e1 10 (there 75), e2 25 (there 25)"), ("set weight web/e2 0", "e2 0 (there 25)")],
)
def test_weights_set_one_by_one_are_unknown_with_the_way_out(one: Haproxy, told: str, words: str) -> None:
    one.tell(told)
    made = router(one.socket)
    found = made.read([WEB])[WEB]
    assert isinstance(found, Unknown)
    assert words in found.why
    assert "'set server web/SERVER state maint'" in found.why
    with pytest.raises(Conflict):
        made.write([change(WEB, FULL, EASTLESS)])


@pytest.mark.parametrize(
    ("servers", "words"),
    [
        ({"east": ["e1", "e2", "e9"], "west": ["w1"]}, "has no server 'e9', which region 'east' names"),
        ({"east": ["e1"], "west": ["w1"]}, "belong to no region: e2; name them"),
        ({"east": ["e*"], "west": ["w1", "e2"]}, "web/e2 belongs to 'east' and to 'west'"),
        ({"east": ["e*", "sorry"], "west": ["w1"]}, "web/sorry belongs to 'east' and stands in 'others'"),
    ],
)
def test_servers_and_regions_that_do_not_match_are_unknown(
    one: Haproxy, servers: Mapping[str, Any], words: str
) -> None:
    found = router(one.socket, servers={WEB: servers}).read([WEB])[WEB]
    assert isinstance(found, Unknown)
    assert words in found.why


def test_a_backend_that_is_not_there_is_named(one: Haproxy) -> None:
    servers = {"nope@edge": SERVERS[API], API: SERVERS[API]}
    found = router(one.socket, servers=servers).read(list(servers))
    assert found[API] == FULL
    assert "there is no backend 'nope'" in str(found["nope@edge"])


def test_instances_that_differ_are_unknown_and_named(pair: list[Haproxy]) -> None:
    made = router(*(each.socket for each in pair))
    made.write([change(WEB, FULL, EASTLESS)])
    pair[1].stop()
    pair[1].start()
    found = made.read([WEB])[WEB]
    assert isinstance(found, Unknown)
    assert f"{pair[1].socket} has east 100, west 100; {pair[0].socket} has east 0, west 200" in found.why
    [said] = re.findall(rf'echo "([^"]*)" \| socat stdio {re.escape(pair[1].socket)}$', found.why)
    with pytest.raises(Conflict):
        made.write([change(WEB, EASTLESS, FULL)])
    pair[1].tell(said)
    assert state(made, WEB) == EASTLESS


def test_what_was_cut_off_between_instances_is_completed_and_nothing_else(pair: list[Haproxy]) -> None:
    made, meant = router(*(each.socket for each in pair)), change(WEB, FULL, EASTLESS)
    assert not made.half_made(meant)
    router(pair[0].socket).write([meant])
    assert made.half_made(meant)
    made.complete([meant])
    assert state(made, WEB) == EASTLESS
    assert not made.half_made(meant)
    with pytest.raises(Conflict):
        made.complete([meant])
    router(pair[0].socket).write([change(WEB, EASTLESS, FULL)])
    router(pair[1].socket).write([change(WEB, EASTLESS, RouteState({"east": 50, "west": 150}))])
    assert not made.half_made(meant), "somebody else was there"
    with pytest.raises(Conflict):
        made.complete([meant])


def test_instances_of_which_one_is_held_off_are_told_so(pair: list[Haproxy]) -> None:
    pair[1].tell(*(f"set server web/{name} state maint" for name in SERVERS[WEB]["east"]))
    found = router(*(each.socket for each in pair)).read([WEB])[WEB]
    assert isinstance(found, Unknown)
    assert "to have them as " in found.why
    assert "see who holds off web/" in found.why


def test_a_restart_in_between_is_seen(one: Haproxy) -> None:
    made = router(one.socket)
    made.write([change(WEB, FULL, EASTLESS)])
    one.stop()
    one.start()
    assert state(made, WEB) == FULL
    assert made.settled(WEB, EASTLESS, "").outcome == "fail"


def test_a_dead_instance_fails_it_all_before_anything_is_written(pair: list[Haproxy]) -> None:
    made = router(*(each.socket for each in pair))
    pair[1].stop()
    try:
        found = made.read([WEB])[WEB]
        with pytest.raises(Failed, match="cannot be reached: connection refused; nothing was written"):
            made.write([change(WEB, FULL, EASTLESS)])
    finally:
        pair[1].start()
    assert isinstance(found, Unknown)
    assert pair[1].socket in found.why
    assert pair[0].weights("web")["e1"] == 75


def test_the_first_instance_is_put_back_where_the_second_refuses(pair: list[Haproxy]) -> None:
    made = router(pair[0].socket, pair[1].operator)
    with pytest.raises(Failed) as failed:
        made.write([change(WEB, FULL, EASTLESS)])
    assert "its socket is not of level admin; nothing was changed" in failed.value.what
    assert "level admin" in failed.value.next
    for each in pair:
        assert each.weights("web") == {"e1": 75, "e2": 25, "w1": 100, "sorry": 1}


def test_shares_on_a_static_algorithm_are_put_back_and_explained(one: Haproxy) -> None:
    servers = {"fixed@edge": {"east": ["e1"], "west": ["w1"]}}
    with pytest.raises(Failed) as failed:
        router(one.socket, servers=servers).write([change("fixed@edge", FULL, EASTLESS)])
    assert "static balance algorithm" in failed.value.what
    assert "switch: true" in failed.value.next
    assert one.weights("fixed") == {"e1": 100, "w1": 100}
    made = router(one.socket, servers=servers, switch=True)
    made.write([change("fixed@edge", FULL, RouteState({"east": 0, "west": 100}))])
    assert one.weights("fixed") == {"e1": 0, "w1": 100}


def test_a_lost_answer_is_indeterminate_and_reads_back(proxy: Proxy) -> None:
    proxy.fault = lambda line: "lose" if b"set weight" in line else ""
    made = router(proxy.port)
    with pytest.raises(Indeterminate, match="its answer was lost"):
        made.write([change(WEB, FULL, EASTLESS)])
    assert state(made, WEB) == EASTLESS


def test_an_answer_lost_by_the_second_says_where_the_first_stands(pair: list[Haproxy]) -> None:
    proxy = Proxy(pair[1].socket)
    try:
        proxy.fault = lambda line: "lose" if b"set weight" in line else ""
        with pytest.raises(Indeterminate, match=f"on {pair[0].socket} they are"):
            router(pair[0].socket, proxy.port).write([change(WEB, FULL, EASTLESS)])
    finally:
        proxy.close()


def test_silence_is_bounded(proxy: Proxy) -> None:
    proxy.fault = lambda _: "hang"
    made = router(proxy.port, timeout="200ms")
    began = time.monotonic()
    found = made.read([WEB])[WEB]
    with pytest.raises(Failed, match=r"gave no whole answer within 0\.2 s; nothing was written"):
        made.write([change(WEB, FULL, EASTLESS)])
    assert time.monotonic() - began < 2
    assert isinstance(found, Unknown)


@pytest.mark.parametrize(
    "nonsense",
    ["HTTP/1.1 400 Bad request\r\n\r\n", "1\n# be_id be_name\n\n", "2\n# other\n\n", "\n\n\n\n\n", "SSH-2.0-x\n"],
)
def test_nonsense_is_unknown_and_nothing_is_written(proxy: Proxy, nonsense: str) -> None:
    proxy.fault = lambda _: nonsense
    made = router(proxy.port)
    assert isinstance(made.read([WEB])[WEB], Unknown)
    with pytest.raises((Failed, Conflict)):
        made.write([change(WEB, FULL, EASTLESS)])
    assert not [line for line in proxy.lines if b"set weight" in line]


MEDDLING = ["set weight web/w1 40", "set server web/w1 state drain", "set weight web/e1 10"]


@pytest.mark.parametrize("told", MEDDLING)
def test_a_change_between_reading_and_writing_is_put_back(one: Haproxy, proxy: Proxy, told: str) -> None:
    def fault(line: bytes) -> str:
        if b"set weight" in line and sum(b"set weight" in each for each in proxy.lines) == 1:
            one.tell(told)
        return ""

    one.tell(told)
    theirs = one.tell("show servers state web")
    one.tell(*RESET)
    proxy.fault = fault
    with pytest.raises(Conflict) as conflict:
        router(proxy.port).write([change(API, FULL, EASTLESS), change(WEB, FULL, EASTLESS)])
    assert WEB in conflict.value.what
    now = [row.split()[3:9] for row in one.tell("show servers state web").splitlines()[2:]]
    assert now == [row.split()[3:9] for row in theirs.splitlines()[2:]]
    assert one.weights("api") == {"east-1": 40, "east-2": 60, "west-1": 100}


def test_a_line_longer_than_haproxy_takes_is_sent_in_parts(tmp_path: Path) -> None:
    count = 256
    rows = "".join(
        f"    server {region}-{'x' * 30}-{at} 127.0.0.1:1 weight 1\n"
        for region in ("east", "west")
        for at in range(count)
    )
    many = Haproxy(tmp_path / "many", f"backend many\n{rows}")
    many.start()
    proxy = Proxy(many.socket)
    try:
        names = {region: [f"{region}-{'x' * 30}-{at}" for at in range(count)] for region in ("east", "west")}
        made = router(proxy.port, servers={"many@edge": names})
        before, after = RouteState({"east": 256, "west": 256}), RouteState({"east": 0, "west": 512})
        made.write([change("many@edge", before, after)])
        assert sum(b"set weight" in line for line in proxy.lines) > 2
        assert set(many.weights("many").values()) == {0, 2}
        written = len(proxy.lines)
        hand = names["west"][200]

        def fault(line: bytes) -> str:
            if b"set weight" in line and sum(b"set weight" in each for each in proxy.lines[written:]) == 2:
                many.tell(f"set weight many/{hand} 9")
            return ""

        proxy.fault = fault
        with pytest.raises(Conflict):
            made.write([change("many@edge", after, before)])
        weights = many.weights("many")
        assert weights.pop(hand) == 9
        assert {name: weight for name, weight in weights.items() if weight not in (0, 2)} == {}
    finally:
        proxy.close()
        many.stop()


def test_another_process_is_waited_for(one: Haproxy) -> None:
    handle = os.open(one.home, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(Failed, match="another run on this machine has been writing"):
            router(one.socket, timeout="200ms").write([change(WEB, FULL, EASTLESS)])
    finally:
        os.close(handle)
    router(one.socket).write([change(WEB, FULL, EASTLESS)])


def test_of_several_processes_one_wins(one: Haproxy) -> None:
    code = (
        "import sys\n"
        "from tests.routers.test_haproxy import *\n"
        "made = router(sys.argv[1])\n"
        "input()\n"
        "try:\n    made.write([change(WEB, FULL, RouteState({'east': int(sys.argv[2]), 'west': 150}))])\n"
        "except Conflict:\n    sys.exit(3)\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, one.socket, str(weight)], stdin=subprocess.PIPE)
        for weight in (11, 22, 33)
    ]
    for each in writers:
        assert each.stdin is not None
        each.stdin.write(b"\n")
        each.stdin.flush()
    codes = [each.wait(20) for each in writers]
    for each in writers:
        assert each.stdin is not None
        each.stdin.close()
    assert sorted(codes) == [0, 3, 3]
    assert state(router(one.socket), WEB).weights["east"] == (11, 22, 33)[codes.index(0)]


def front(one: Haproxy) -> int:
    text = (one.home / "haproxy.cfg").read_text()
    return int(text.split("bind 127.0.0.1:")[1].split()[0])


def test_connections_are_counted_and_closed(one: Haproxy, both: Mapping[str, Shop]) -> None:
    made = router(one.socket)
    assert made.connections(WEB, "east") == made.connections(WEB, "west") == 0
    made.write([change(WEB, FULL, RouteState({"east": 100, "west": 0}))])
    already = both["east"].waiting
    clients = [socket.create_connection((LOOPBACK, front(one)), 5) for _ in range(3)]
    try:
        for client in clients:
            client.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: both["east"].waiting == already + 3, 5, "three requests in east")
        assert made.connections(WEB, "east") == 3
        assert made.connections(WEB, "west") == 0
        made.close_connections(WEB, "west")
        assert made.connections(WEB, "east") == 3
        made.close_connections(WEB, "east")
        until(lambda: made.connections(WEB, "east") == 0, 5, "no connection in east")
        for client in clients:
            assert b"200" not in client.recv(100)[:15]
    finally:
        for client in clients:
            client.close()
        both["east"].release.set()


def test_closing_needs_an_admin_and_counting_an_instance(one: Haproxy) -> None:
    with pytest.raises(Failed, match="refuses 'shutdown sessions server web/e1': Permission denied"):
        router(one.operator).close_connections(WEB, "east")
    with pytest.raises(Failed, match="cannot be reached"):
        router(str(one.home / "gone.sock")).connections(WEB, "east")


def test_the_state_file_lets_a_restart_keep_the_weights(one: Haproxy) -> None:
    saved = one.home / "saved"
    saved.write_text("")
    saved.chmod(0o640)
    made = router(one.socket, state_file=str(saved))
    made.write([change(WEB, FULL, EASTLESS)])
    assert stat.S_IMODE(saved.stat().st_mode) == 0o640
    one.stop()
    one.start()
    assert state(made, WEB) == EASTLESS
    made.write([change(WEB, EASTLESS, FULL)])
    one.stop()
    one.start()
    assert state(made, WEB) == FULL
    assert [path.name for path in one.home.iterdir() if path.name.startswith(".saved")] == []


def test_a_state_file_that_cannot_be_written_stops_it_before(one: Haproxy) -> None:
    made = router(one.socket, state_file=str(one.home / "nowhere" / "saved"))
    with pytest.raises(Failed, match="cannot be written: no such file or directory; nothing was written"):
        made.write([change(WEB, FULL, EASTLESS)])
    assert state(made, WEB) == FULL


def test_a_state_file_that_fails_afterwards_is_indeterminate(one: Haproxy, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    saved.mkdir()
    made = router(one.socket, state_file=str(saved))
    with pytest.raises(Indeterminate, match=r"the weights are set, but .* could not be written"):
        made.write([change(WEB, FULL, EASTLESS)])
    assert state(made, WEB) == EASTLESS
    assert list(tmp_path.iterdir()) == [saved]


def test_remarks_say_what_a_reload_does(one: Haproxy) -> None:
    forgets, sticky = router(one.socket).remarks(WEB)
    assert "forgets the weights" in forgets
    assert "cookie or a stick table" in sticky
    assert "/x/saved" in router(one.socket, state_file="/x/saved").remarks(WEB)[0]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"instances": []}, "at least 1"),
        ({"instances": ["admin.sock"]}, "is not a stats socket"),
        ({"instances": ["host:0"]}, "is not a stats socket"),
        ({"instances": ["::1:9999"]}, "is not a stats socket"),
        ({"instances": ["/" + "x" * 110]}, "longer than the path of a socket"),
        ({"instances": ["/a.sock", "/b/../a.sock"]}, "stands here twice"),
        ({"instances": ["h:1"], "state_file": "/x"}, "for one instance on this host"),
        ({"instances": ["/a", "/b"], "state_file": "/x"}, "for one instance on this host"),
        ({"instances": ["/a"], "state_file": "x"}, "must be a whole path"),
        ({"instances": ["/a"], "timeout": "0s"}, "greater than 0"),
    ],
)
def test_mistakes_of_a_router_s_config(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Router.Config.model_validate(config)


def test_instances_are_written_as_they_are_read() -> None:
    texts = ["/run/haproxy/admin.sock", "lb1.example.com:9999", "[2001:db8::1]:9999"]
    config = Router.Config.model_validate({"instances": texts})
    assert config.model_dump()["instances"] == tuple(texts)


GOOD = {"backend": "web", "servers": {"east": ["e1", "e2"], "west": ["w1"]}}


@pytest.mark.parametrize(
    ("own", "weights", "ttl", "mistakes"),
    [
        ({}, NORMAL, None, {}),
        ({}, NORMAL, 60, {("ttl",): "no TTL"}),
        ({"servers": {"east": ["e1"]}}, NORMAL, None, {("servers",): "region 'west' has no servers"}),
        ({}, {"east": 1, "west": 1}, None, {("weights", "east"): "at least 2"}),
        ({}, {"east": 200, "west": 100}, None, {("weights",): "at most 256"}),
        ({"switch": True}, {"east": 200, "west": 200}, None, {}),
        ({"switch": True}, {"east": 2, "west": 0}, None, {("weights", "west"): "weight above 0"}),
        ({}, {"east": 9, "wets": 9}, None, {("servers", "west"): "did you mean 'wets'", ("servers",): "'wets'"}),
        (
            {"servers": {"east": ["e1", "e1"], "west": ["e1", "w;1"]}},
            NORMAL,
            None,
            {
                ("servers", "east", 1): "stands here twice",
                ("servers", "west", 0): "one drains the other",
                ("servers", "west", 1): "is not a server's name",
            },
        ),
        ({"others": ["e1", "a b"]}, NORMAL, None, {("others", 0): "'east'", ("others", 1): "is not a server's"}),
    ],
)
def test_mistakes_of_a_route(
    own: dict[str, Any], weights: dict[str, int], ttl: int | None, mistakes: dict[tuple[Any, ...], str]
) -> None:
    config = Router.RouteConfig.model_validate({**GOOD, **own})
    found = dict(Router.mistakes(spec(WEB, config, weights, ttl)))
    assert found.keys() == mistakes.keys(), found
    for path, words in mistakes.items():
        assert words in found[path]


@pytest.mark.parametrize("backend", ["", "a b", "web;shutdown", "web/e1", "wéb"])
def test_a_backend_s_name_cannot_carry_a_command(backend: str) -> None:
    with pytest.raises(ValidationError, match="is not a backend's name"):
        Router.RouteConfig.model_validate({**GOOD, "backend": backend})


def test_every_thread_that_was_started_ends(one: Haproxy) -> None:
    made = router(one.socket)
    for _ in range(5):
        made.read([WEB, API])
    until(lambda: not [each for each in threading.enumerate() if each.name == "bounded"], 5, "the end of all threads")
