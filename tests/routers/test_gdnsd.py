"""The gdnsd router against real gdnsd servers, and its file by itself."""

import os
import shlex
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from failover.clock import SYSTEM
from failover.errors import Conflict, Failed, Indeterminate, Refused
from failover.ports import SupportsAnswers, SupportsRemarks, SupportsWeights
from failover.routers._gdnsd_file import Unclear, parse, rewritten, switched
from failover.routers._gdnsd_host import Changed, Host, Lost, Unchanged, Unseen
from failover.routers.gdnsd import Gdnsd as Router
from failover.testing.routers import RouterContract, change, state
from failover.world import RouteState, Unknown
from tests.routers.gdnsds import ZONE, Gdnsd
from tests.routers.specs import LOOPBACK, free_port, spec, until

WEB, API, MOST = "web@gdnsd", "api@gdnsd", "most@gdnsd"
NORMAL = {"east": 50, "west": 50}
FULL = RouteState(NORMAL)
EASTLESS = RouteState({"east": 0, "west": 50})
WESTLESS = RouteState({"east": 50, "west": 0})
STATES = {
    WEB: {"east": ["metafo/web/east"], "west": ["metafo/web/west"]},
    API: {"east": ["192.0.2.21/up", "192.0.2.22/up"], "west": ["192.0.2.31/up"]},
    MOST: {"east": ["192.0.2.41/up"], "west": ["192.0.2.51/up"]},
}
ADDRESSES = {
    WEB: {"east": ["192.0.2.1", "192.0.2.2"], "west": ["192.0.2.11"]},
    API: {"east": ["192.0.2.21", "192.0.2.22"], "west": ["192.0.2.31"]},
    MOST: {"east": ["192.0.2.41"], "west": ["192.0.2.51"]},
}
OURS = "# set by failover"
THEIRS = b'# people\'s own\n\n203.0.113.9/up => UP/30 ; keep this\r\n\t"203.0.113.8/x y" = DOWN, 203.0.113.7/*=DOWN'


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Gdnsd]]:
    home = tmp_path_factory.mktemp("gdnsd")
    made = []
    try:
        for name in ("ns1", "ns2"):
            made.append(Gdnsd(home / name))
            made[-1].start()
        yield made
    finally:
        for each in made:
            each.stop()


@pytest.fixture
def pair(servers: list[Gdnsd]) -> list[Gdnsd]:
    for each in servers:
        each.state.unlink(missing_ok=True)
        each.state.write_bytes(THEIRS)
    return servers


@pytest.fixture
def one(pair: list[Gdnsd]) -> Gdnsd:
    return pair[0]


def server(at: Gdnsd, **more: Any) -> dict[str, Any]:
    return {"dns": f"{LOOPBACK}:{at.port}", "admin_state": str(at.state), "ctl": at.ctl, **more}


def router(*servers: Mapping[str, Any], states: Mapping[str, Any] = STATES, **config: Any) -> Router:
    routes = {}
    for route in states:
        own = {
            "record": f"{route.partition('@')[0]}.{ZONE}",
            "addresses": ADDRESSES[route],
            "states": states[route],
        }
        routes[route] = spec(route, Router.RouteConfig.model_validate(own), NORMAL, None)
    return Router("gdnsd", Router.Config.model_validate({"servers": servers, **config}), routes, SYSTEM)


class GdnsdHarness:
    routes = (WEB, API)
    patience = 15.0

    def __init__(self, pair: Sequence[Gdnsd]) -> None:
        self.pair = pair

    def make(self) -> Router:
        return router(*map(server, self.pair), timeout="3s")

    def stranger(self) -> Router:
        raise NotImplementedError("a file has no credentials")

    def meddle(self, route: str) -> None:
        for each in self.pair:
            with each.state.open("a") as file:
                file.write(f"\n{STATES[route]['west'][0]} => DOWN # by hand\n")

    def stop(self) -> None:
        self.pair[-1].stop()

    def start(self) -> None:
        self.pair[-1].start()


class TestContract(RouterContract):
    # Whoever may write the file may switch; the permissions of a file do not bind root, who runs these tests.
    test_fails_clearly_with_wrong_credentials = None  # type: ignore[assignment]

    @pytest.fixture
    def harness(self, pair: list[Gdnsd]) -> GdnsdHarness:
        return GdnsdHarness(pair)


def settles(made: Router, route: str, wanted: RouteState) -> None:
    until(lambda: made.settled(route, wanted, "").passed, 15, f"{wanted} on {route}")


def test_is_what_it_says(one: Gdnsd) -> None:
    made = router(server(one))
    assert not isinstance(made, SupportsWeights)
    assert isinstance(made, SupportsAnswers)
    assert isinstance(made, SupportsRemarks)
    assert "may answer web.example.test. from their caches" in made.remarks(WEB)[0]


def test_gdnsd_answers_without_the_region_even_after_a_restart(one: Gdnsd) -> None:
    made = router(server(one))
    made.write([change(WEB, FULL, EASTLESS), change(API, FULL, WESTLESS)])
    settles(made, WEB, EASTLESS)
    settles(made, API, WESTLESS)
    assert one.addresses("web") == {"192.0.2.11"}
    one.stop()
    one.start()
    assert made.settled(WEB, EASTLESS, "").passed
    made.write([change(WEB, EASTLESS, FULL), change(API, WESTLESS, FULL)])
    settles(made, WEB, FULL)
    settles(made, API, FULL)
    until(lambda: one.addresses("api") == {"192.0.2.21", "192.0.2.22", "192.0.2.31"}, 5, "all addresses again")


def test_other_people_s_lines_stay_byte_by_byte(one: Gdnsd) -> None:
    made = router(server(one))
    made.write([change(API, FULL, EASTLESS)])
    ours = f"\n192.0.2.21/up => DOWN {OURS}\n192.0.2.22/up => DOWN {OURS}\n"
    assert one.state.read_bytes() == THEIRS + ours.encode()
    settles(made, API, EASTLESS)
    made.write([change(API, EASTLESS, FULL)])
    assert one.state.read_bytes() == THEIRS + b"\n"


def test_mode_and_link_stay_and_no_other_file_is_left(one: Gdnsd, tmp_path: Path) -> None:
    target = tmp_path / "kept" / "admin_state"
    target.parent.mkdir()
    target.write_bytes(THEIRS)
    target.chmod(0o664)
    if os.getuid() == 0:
        os.chown(target, 12345, 23456)
    before = target.stat()
    one.state.unlink()
    one.state.symlink_to(target)
    router(server(one)).write([change(WEB, FULL, EASTLESS)])
    after = target.stat()
    assert one.state.is_symlink()
    assert OURS in target.read_text()
    assert (before.st_uid, before.st_gid, stat.S_IMODE(before.st_mode)) == (
        after.st_uid,
        after.st_gid,
        stat.S_IMODE(after.st_mode),
    )
    assert list(target.parent.iterdir()) == [target]


def test_a_file_that_is_not_there_is_empty(one: Gdnsd) -> None:
    one.state.unlink()
    made = router(server(one))
    made.write([change(WEB, FULL, EASTLESS)])
    assert one.state.read_text() == f"metafo/web/east => DOWN {OURS}\n"
    made.write([change(WEB, EASTLESS, FULL)])
    assert one.state.read_text() == ""


HELD = [
    "metafo/web/east => DOWN",
    "metafo/web/east => DOWN/30 # by hand",
    "*/east = DOWN",
    '"metafo/*/e\\097st" => DOWN',
    f"metafo/web/east => DOWN   {OURS}",
    f"metafo/web/east => DOWN {OURS}, or so",
]


@pytest.mark.parametrize("line", HELD)
def test_a_region_that_people_hold_down_reads_as_down_and_is_not_brought_back(one: Gdnsd, line: str) -> None:
    one.state.write_text(f"{line}\n")
    made = router(server(one))
    assert state(made, WEB) == EASTLESS
    with pytest.raises(Failed) as failed:
        made.write([change(WEB, EASTLESS, FULL)])
    assert "line 1 (" in failed.value.what
    assert "is somebody else's and holds it; nothing was written" in failed.value.what
    assert one.state.read_text() == f"{line}\n"


def test_a_line_that_people_add_while_it_is_drained_is_not_lifted_with_ours(one: Gdnsd) -> None:
    made = router(server(one))
    made.write([change(WEB, FULL, EASTLESS)])
    text = one.state.read_text() + "*/east => DOWN # the power is off\n"
    one.state.write_text(text)
    assert state(made, WEB) == EASTLESS
    with pytest.raises(Failed, match=r"line 5 \(\*/east => DOWN\)"):
        made.write([change(WEB, EASTLESS, FULL)])
    assert one.state.read_text() == text


def test_one_address_that_people_hold_down_stays_so(one: Gdnsd) -> None:
    one.state.write_text("192.0.2.22/up => DOWN # its disk\n")
    made = router(server(one))
    assert state(made, API) == FULL
    made.write([change(API, FULL, EASTLESS)])
    assert one.state.read_text() == f"192.0.2.22/up => DOWN # its disk\n192.0.2.21/up => DOWN {OURS}\n"
    assert state(made, API) == EASTLESS
    made.write([change(API, EASTLESS, FULL)])
    assert one.state.read_text() == "192.0.2.22/up => DOWN # its disk\n"


UNCLEAR = [
    ("metafo/web/east => UP\n", "line 1 (metafo/web/east => UP) forces metafo/web/east up"),
    (f"192.0.2.21/up => DOWN {OURS}\n", "only a part of east is forced down: 192.0.2.21/up, but not 192.0.2.22/up"),
    ("a/b => DOWN\na/b => UP\n", "line 2 has a/b a second time"),
    ("a/b => { c => d }\n", "line 1 cannot be understood from '{ c => d }' on"),
    ("\n$include{more}\n", "line 2 cannot be understood from '$include{more}' on"),
    ("a/b =>\n", "line 1 cannot be understood"),
    ("a/b => SIDEWAYS\n", "line 1 cannot be understood"),
    ("a/b DOWN\n", "line 1 cannot be understood"),
    ("# comment", "line 1 is a comment without a newline"),
    ('"a/b => DOWN\n', "line 1 cannot be understood"),
]


@pytest.mark.parametrize(("text", "words"), UNCLEAR)
def test_what_cannot_be_told_is_unknown_and_left_alone(one: Gdnsd, text: str, words: str) -> None:
    one.state.write_text(text)
    made = router(server(one))
    found = made.read([WEB, API])
    assert any(isinstance(each, Unknown) and words in each.why for each in found.values()), found
    route = API if "192" in text else WEB
    with pytest.raises(Conflict):
        made.write([change(route, FULL, EASTLESS)])
    assert one.state.read_text() == text


def test_a_state_that_gdnsd_does_not_have_is_named(one: Gdnsd) -> None:
    states = {WEB: {"east": ["metafo/web/eats"], "west": ["metafo/web/west"]}}
    found = router(server(one), states=states).read([WEB])[WEB]
    assert "gdnsd has no state 'metafo/web/eats'; did you mean 'metafo/web/east'?" in str(found)


def test_servers_that_differ_are_unknown(pair: list[Gdnsd]) -> None:
    router(server(pair[0])).write([change(WEB, FULL, EASTLESS)])
    made = router(*map(server, pair))
    found = made.read([WEB])[WEB]
    assert isinstance(found, Unknown)
    assert f"{pair[0].state} has east 0, west 50; {pair[1].state} has east 50, west 50" in found.why
    with pytest.raises(Conflict):
        made.write([change(WEB, FULL, EASTLESS)])


def test_what_was_cut_off_between_servers_is_completed_and_nothing_else(pair: list[Gdnsd]) -> None:
    made, meant = router(*map(server, pair)), change(WEB, FULL, EASTLESS)
    assert not made.half_made(meant)
    router(server(pair[0])).write([meant])
    assert made.half_made(meant)
    made.complete([meant])
    assert made.read([WEB])[WEB] == EASTLESS
    router(server(pair[0])).write([change(WEB, EASTLESS, FULL)])
    router(server(pair[1])).write([change(WEB, EASTLESS, FULL)])
    router(server(pair[1])).write([change(WEB, FULL, WESTLESS)])
    assert not made.half_made(meant), "somebody else was there"
    with pytest.raises(Conflict):
        made.complete([meant])


def test_a_file_that_gdnsd_does_not_read_never_settles(one: Gdnsd, tmp_path: Path) -> None:
    made = router(server(one, admin_state=str(tmp_path / "elsewhere")))
    made.write([change(WEB, FULL, EASTLESS)])
    verdict = made.settled(WEB, EASTLESS, "")
    assert not verdict.passed
    assert "its gdnsd still shows metafo/web/east NA" in verdict.evidence[0]


def test_a_plugin_that_answers_all_in_need_does_not_settle(one: Gdnsd) -> None:
    made = router(server(one))
    made.write([change(MOST, FULL, EASTLESS)])
    shows = f"{one.state} has east 0, west 50, and gdnsd shows it"

    def seen() -> bool:
        return not any("still shows" in line for line in made.settled(MOST, EASTLESS, "").evidence)

    until(seen, 15, shows)
    verdict = made.settled(MOST, EASTLESS, "")
    assert not verdict.passed
    assert "still answers 192.0.2.41, which is east; if that stays, too few others are up" in str(verdict)


def test_answers_are_by_server_and_resolver(one: Gdnsd) -> None:
    nobody = free_port()
    made = router(
        server(one), {**server(one), "dns": f"{LOOPBACK}:{nobody}", "admin_state": "/x"},
        resolvers=[f"{LOOPBACK}:{one.port}"], timeout="1s",
    )  # fmt: skip
    until(lambda: one.addresses("web") == {"192.0.2.1", "192.0.2.2"}, 10, "the normal answers")
    found = made.answers(WEB, FULL)
    assert {name: str(each.outcome) for name, each in found.items()} == {
        f"name server {LOOPBACK}:{one.port}": "pass",
        f"name server {LOOPBACK}:{nobody}": "unknown",
        f"resolver {LOOPBACK}:{one.port}": "unknown",
    }
    wanted = made.answers(WEB, EASTLESS)[f"name server {LOOPBACK}:{one.port}"]
    assert "still answers 192.0.2.1, which is east" in str(wanted)


def test_the_first_server_is_put_back_where_the_second_fails(pair: list[Gdnsd], tmp_path: Path) -> None:
    (tmp_path / "mv").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "mv").chmod(0o755)
    broken = server(pair[1], via=["env", f"PATH={tmp_path}:{os.environ['PATH']}"])
    with pytest.raises(Failed, match=r"cannot be replaced; nothing stands"):
        router(server(pair[0]), broken).write([change(WEB, FULL, EASTLESS)])
    for each in pair:
        assert each.state.read_bytes() == THEIRS
        assert [path.name for path in each.state.parent.iterdir()] == ["admin_state"]


def test_a_host_that_does_not_say_how_it_ended_is_indeterminate(pair: list[Gdnsd], tmp_path: Path) -> None:
    (tmp_path / "mv").write_text('#!/bin/sh\n/bin/mv "$@"\nkill -9 $PPID\n')
    (tmp_path / "mv").chmod(0o755)
    killed = server(pair[1], via=["env", f"PATH={tmp_path}:{os.environ['PATH']}"])
    made = router(server(pair[0]), killed)
    with pytest.raises(Indeterminate, match=f"{pair[0].state} was rewritten"):
        made.write([change(WEB, FULL, EASTLESS)])
    assert state(made, WEB) == EASTLESS


def test_an_editor_that_saves_in_between_is_seen(one: Gdnsd, tmp_path: Path) -> None:
    script = f'#!/bin/sh\nprintf "\\n# saved\\n" >>{shlex.quote(str(one.state))}\nexec /usr/bin/mktemp "$@"\n'
    (tmp_path / "mktemp").write_text(script)
    (tmp_path / "mktemp").chmod(0o755)
    via = ["env", f"PATH={tmp_path}:{os.environ['PATH']}"]
    with pytest.raises(Conflict, match="route web@gdnsd"):
        router(server(one, via=via)).write([change(WEB, FULL, EASTLESS)])
    assert one.state.read_bytes() == THEIRS + b"\n# saved\n"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"via": ["no-such-program"]}, "'no-such-program' cannot be run: no such file or directory"),
        ({"via": ["sh", "-c", "echo no route to host >&2; exit 255", "x"]}, "cannot be read: no route to host"),
        ({"admin_state": "/nowhere/at/all"}, "there is no directory for /nowhere/at/all"),
        ({"ctl": ["no-such-ctl"]}, "does not answer"),
        ({"ctl": ["echo", "{}"]}, "says what cannot be understood: {} states"),
        ({"ctl": ["sh", "-c", "echo '{\"metafo/web/east\": 3}'"]}, "says what cannot be understood"),
        ({"via": ["sleep", "30", "#"]}, "cannot be read"),
    ],
)
def test_a_host_that_cannot_be_asked_is_unknown_and_not_written(one: Gdnsd, more: dict[str, Any], words: str) -> None:
    made = router(server(one, **more), timeout="2s")
    found = made.read([WEB])[WEB]
    assert isinstance(found, Unknown)
    assert words in found.why
    with pytest.raises(Failed, match="nothing was written"):
        made.write([change(WEB, FULL, EASTLESS)])
    assert one.state.read_bytes() == THEIRS


def test_silence_is_bounded(one: Gdnsd) -> None:
    made = router(server(one, ctl=["sh", "-c", "sleep 30"]), timeout="1s")
    began = time.monotonic()
    assert "did not finish within 1 s" in str(made.read([WEB])[WEB])
    assert time.monotonic() - began < 3


def test_a_slow_host_does_not_write_after_it_was_given_up(one: Gdnsd, tmp_path: Path) -> None:
    """As through ssh, which leaves what it has started behind when it is killed."""
    (tmp_path / "sync").write_text("#!/bin/sh\nsleep 2.5\n")
    (tmp_path / "sync").chmod(0o755)
    via = ["setsid", "env", f"PATH={tmp_path}:{os.environ['PATH']}"]
    host = Host(str(one.state), one.ctl, via, 1.0)
    with pytest.raises(Lost, match="did not finish within 1 s"):
        host.replace(THEIRS, b"new\n")
    until(lambda: len(list(one.state.parent.iterdir())) == 1, 10, "the end of the slow script")
    assert one.state.read_bytes() == THEIRS


def test_a_lock_is_waited_for(one: Gdnsd) -> None:
    holder = subprocess.Popen(
        ["flock", str(one.state.parent), "sh", "-c", "echo held; read x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    try:
        with pytest.raises(Unchanged, match="another run still writes"):
            Host(str(one.state), one.ctl, [], 2.0).replace(THEIRS, b"")
    finally:
        holder.communicate()
    with pytest.raises(Changed):
        Host(str(one.state), one.ctl, [], 2.0).replace(b"other", b"")
    with pytest.raises(Unseen):
        Host("/nowhere/x", one.ctl, [], 2.0).look()


def test_of_several_processes_one_wins(pair: list[Gdnsd]) -> None:
    code = (
        "import sys\n"
        "from tests.routers.test_gdnsd import *\n"
        "made = router(*json.loads(sys.argv[1]))\n"
        "input()\n"
        "try:\n    made.write([change(WEB, FULL, EASTLESS if sys.argv[2] == 'east' else WESTLESS)])\n"
        "except Conflict:\n    sys.exit(3)\n"
    )
    import json

    config = json.dumps([server(each) for each in pair])
    argv = [sys.executable, "-c", f"import json\n{code}", config]
    writers = [subprocess.Popen([*argv, region], stdin=subprocess.PIPE) for region in ("east", "west", "east")]
    for each in writers:
        assert each.stdin is not None
        each.stdin.write(b"\n")
        each.stdin.close()
    codes = [each.wait(20) for each in writers]
    assert sorted(codes) == [0, 3, 3]
    won = (EASTLESS, WESTLESS, EASTLESS)[codes.index(0)]
    assert state(router(*map(server, pair)), WEB) == won


def test_has_no_weights(one: Gdnsd) -> None:
    with pytest.raises(Refused) as refused:
        router(server(one)).write([change(WEB, FULL, RouteState({"east": 25, "west": 50}))])
    assert refused.value.guard == "weights-unsupported"
    assert "stages: [0]" in refused.value.next
    with pytest.raises(Refused, match="a TTL of 9 s"):
        router(server(one)).write([change(WEB, FULL, RouteState(NORMAL, 9))])


LINE = st.sampled_from(
    [b"", b"# a", b"x/y => DOWN", b"; z", b"\tq/* = UP/3 # u", b"metafo/web/east => DOWN # set by failover", b"\r"]
)


@given(st.lists(LINE, unique=True), st.booleans())
def test_what_is_added_and_removed_again_leaves_the_file_as_it_was(lines: list[bytes], newline: bool) -> None:
    content = b"\n".join([*lines, b"a/b => UP"]) + (b"\n" if newline else b"")
    keys = ["k/one", "k/two"]
    down = rewritten(content, keys, [])
    assert switched(parse(down), {"k": keys}) == {"k": False}
    assert rewritten(down, [], keys) == content + (b"" if newline else b"\n")
    assert rewritten(content, [], keys) == content
    assert rewritten(down, keys, []) == down


@pytest.mark.parametrize(
    ("content", "on"),
    [
        (b"*/east => UP\nmetafo/web/east => DOWN", False),
        (b"metafo/* => DOWN", False),
        (b'"metafo/web/[^w]*" => DOWN', False),
        (b'"metafo/web/[^e]*" => DOWN', True),
        (b"metafo/web/east/x => DOWN", True),
        (b"# metafo/web/east => DOWN\n", True),
        (b"metafo/web/east=DOWN/5,other=UP", False),
    ],
)
def test_a_later_line_wins_and_patterns_match(content: bytes, on: bool) -> None:
    assert switched(parse(content), {"east": ["metafo/web/east"]}) == {"east": on}


def test_an_up_after_ours_is_unclear() -> None:
    content = f"metafo/web/east => DOWN {OURS}\n*/east => UP\n".encode()
    with pytest.raises(Unclear, match="line 2"):
        switched(parse(content), {"east": ["metafo/web/east"]})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"servers": []}, "at least 1"),
        ({"servers": [{"dns": "h:1", "admin_state": "x"}]}, "is not a whole path"),
        ({"servers": [{"dns": "h:1", "ctl": []}]}, "at least 1"),
        ({"servers": [{"dns": "h:1"}, {"dns": "h:2"}]}, "stands here twice"),
        ({"servers": [{"dns": "h:1"}], "timeout": "100ms"}, "greater than or equal to 1"),
    ],
)
def test_mistakes_of_a_router_s_config(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Router.Config.model_validate(config)


GOOD = {"record": f"web.{ZONE}", "addresses": ADDRESSES[WEB], "states": STATES[WEB]}


@pytest.mark.parametrize(
    ("own", "weights", "ttl", "mistakes"),
    [
        ({}, NORMAL, None, {}),
        ({}, NORMAL, 60, {("ttl",): "zone files"}),
        ({}, {"east": 0, "west": 1}, None, {("weights", "east"): "above 0"}),
        ({"states": {"east": ["a/b"]}}, NORMAL, None, {("states",): "'west' has no states"}),
        ({"addresses": {"east": ["192.0.2.1"], "west": []}}, NORMAL, None, {("addresses",): "'west' has no addr"}),
        (
            {"states": {"east": ["*/east", "a/b"], "west": ["a/b", "c"], "weast": ["d/e"]}},
            NORMAL,
            None,
            {
                ("states", "east", 0): "is not a state",
                ("states", "west", 0): "one drains the other",
                ("states", "west", 1): "is not a state",
                ("states", "weast"): "no region 'weast'",
            },
        ),
        (
            {"type": "AAAA", "addresses": {"east": ["192.0.2.1", "x"], "west": ["2001:db8::1", "2001:db8::1"]}},
            NORMAL,
            None,
            {
                ("addresses", "east", 0): "not an IPv6 address",
                ("addresses", "east", 1): "not an IP address",
                ("addresses", "west", 1): "stands here twice",
            },
        ),
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
