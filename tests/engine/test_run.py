"""One run against what the world and other people do to it."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from failover.engine.estate import Estate
from failover.engine.journal import Journal
from failover.engine.record import Intent, Record
from failover.engine.runner import Hands, read_record, runs
from failover.engine.undo import undo_runbook
from failover.errors import Failed, Indeterminate, Interrupted, Locked, Refused, Usage
from failover.guards import WAIVABLE
from failover.verdict import Verdict, failed, passed, unknown
from failover.world import Change, Member, MemberChange, Role, RouteChange, RouteState, Unknown
from tests import worlds

TTL = """
topology: two
regions: [east, west]
services:
  web:
    routes: [{router: dns, weights: {east: 100, west: 100}, ttl: 60s}]
    checks: {up: {memory: {}}}
routers: {dns: {memory: {}}}
drain: {ttl: 5s}
store: {memory: {}}
"""
SIDE_BY_SIDE = """
topology: two
regions: [east, west]
services:
  web:
    routes: [{router: dns, weights: {east: 100, west: 100}}]
    checks: {up: {memory: {}}}
  api:
    routes: [{router: edge, weights: {east: 100, west: 100}}]
    checks: {up: {memory: {}}}
routers: {dns: {memory: {}}, edge: {memory: {}}}
store: {memory: {}}
"""
BOTH = """
runbook: both
steps:
  - {id: web, needs: [], drain: {region: east, services: web}}
  - {id: api, needs: [], drain: {region: east, services: api}}
"""
DEAD = RouteState({"east": 0, "west": 200}, 60)


def drain(made: Estate) -> Any:
    return worlds.book(made, "drain", region="east")


def started(made: Estate, runbook: Any, hands: Hands | None = None) -> tuple[Any, Any]:
    planned = worlds.plan(made, runbook)
    assert planned.refusal is None
    return worlds.begin(made, planned, hands), planned


def once(do: Callable[[], None]) -> Callable[..., None]:
    """A hook that does it the first time only."""
    left = [do]
    return lambda *_: left.pop()() if left else None


def raising(error: BaseException) -> Callable[[], None]:
    def do() -> None:
        raise error

    return do


def roles(made: Estate, database: str = "orders") -> list[Role]:
    return [copy.role for copy in worlds.databases(made)[database].state.copies.values()]


# --- files that change, plans that change ---


def test_resume_goes_on_with_what_was_started_whatever_the_files_say_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "runbooks" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("runbook: mine\nsteps:\n- {id: go, drain: {region: east}}\n- {id: ok, approve: shall we}\n")
    made = worlds.estate()
    with pytest.raises(Interrupted):
        worlds.run(made, worlds.book(made, "mine"))
    file.write_text("runbook: mine\nsteps:\n- {id: go, drain: {region: west}}\n")
    session = worlds.take_up(made, hands=Hands(approve=lambda *_: True))
    assert [step.id for step in session.runbook.steps] == ["go", "ok"]
    session.go(session.plan(()), {})
    assert worlds.world(made).routes["web@dns"] == DEAD
    head = read_record(made, runs(made)[0]).started
    assert head["sources"]["mine"][1].endswith("approve: shall we}\n")
    assert head["topology"] == ["failover.yaml", worlds.TWO]


def test_a_plan_that_no_longer_holds_is_refused_before_anything_is_written() -> None:
    made = worlds.estate()
    session, planned = started(made, drain(made))
    worlds.put(made, "web@dns", {"east": 50, "west": 100}, 60)
    with pytest.raises(Refused) as refused:
        session.go(planned, {})
    assert refused.value.guard == "plan-changed"
    assert worlds.log(made) == []
    assert read_record(made, session.record.id).status == "refused"


def test_a_record_changed_between_plan_and_write_is_not_overwritten() -> None:
    made = worlds.estate()
    router = worlds.routers(made)["dns"]
    router.before_write = once(lambda: worlds.put(made, "web@dns", {"east": 7, "west": 7}, 60))
    session, planned = started(made, drain(made))
    with pytest.raises(Refused) as refused:
        session.go(planned, {})
    assert (refused.value.guard, refused.value.exit_code) == ("changed-by-others", 3)
    assert any("east 7, west 7" in line for line in refused.value.seen)
    assert worlds.world(made).routes["web@dns"] == RouteState({"east": 7, "west": 7}, 60)
    assert worlds.log(made) == []
    [outcome] = worlds.events(made, kind="outcome")
    assert (outcome["result"], outcome["made"]) == ("failed", [])
    assert worlds.resume(made).status == "done"
    assert worlds.world(made).routes["web@dns"] == DEAD


def test_a_primary_moved_by_somebody_else_is_not_touched() -> None:
    made = worlds.estate()
    session, planned = started(made, worlds.book(made, "promote", to="west"))
    state = worlds.databases(made)["orders"].state

    def meddle() -> None:
        state.copies["east"].role = Role.FENCED

    worlds.databases(made)["orders"].before_write = once(meddle)
    with pytest.raises(Refused) as refused:
        session.go(planned, {})
    assert refused.value.guard == "changed-by-others"
    assert worlds.log(made) == []


# --- undo ---


def evacuate_and_undo(meddle: Callable[[Estate], None]) -> Estate:
    made = worlds.estate(worlds.THREE)
    done = worlds.run(made, worlds.book(made, "evacuate-region", region="east"))
    meddle(made)
    worlds.run(made, undo_runbook(read_record(made, done.id), made.topology))
    return made


def test_undo_takes_back_exactly_what_was_applied() -> None:
    before = worlds.standing(worlds.estate(worlds.THREE))
    made = evacuate_and_undo(lambda _: None)
    assert worlds.standing(made) == before
    assert worlds.world(made).primaries("orders") == ("east",)
    assert worlds.world(made).primaries("carts") == ("west",)


def test_undo_takes_the_newest_back_first() -> None:
    made = evacuate_and_undo(lambda made: worlds.log(made).clear())
    kinds = [type(change) for change in worlds.log(made)]
    assert kinds == sorted(kinds, key=[MemberChange, RouteChange].index)
    assert set(kinds) == {MemberChange, RouteChange}


def test_undo_names_and_leaves_what_somebody_has_changed_since() -> None:
    theirs = {"east": 0, "west": 9, "north": 9}
    made = evacuate_and_undo(lambda made: worlds.put(made, "web@dns", theirs, 10))
    assert worlds.world(made).routes["web@dns"] == RouteState(theirs, 10)
    [note] = read_record(made, runs(made)[-1]).notes
    assert "route web@dns is left as it is" in note
    assert "west 9, north 9" in note
    assert worlds.world(made).routes["api@dns"] == RouteState({"east": 3, "west": 2, "north": 1})


def test_undo_of_a_run_that_changed_nothing_says_so() -> None:
    made = worlds.estate()
    record = worlds.run(made, worlds.book(made, "check"))
    with pytest.raises(Usage, match="changed nothing"):
        undo_runbook(read_record(made, record.id), made.topology)


def test_undo_of_a_run_that_stopped_half_way_takes_back_that_half() -> None:
    made = worlds.estate(worlds.THREE)
    before = worlds.standing(made)
    worlds.routers(made)["dns"].after_write = once(lambda: worlds.see(made, "web", "north", failed("500")))
    with pytest.raises(Failed, match="after drain east to 50 %"):
        worlds.run(made, worlds.book(made, "evacuate-region", region="east"))
    assert worlds.standing(made) != before
    worlds.see(made, "web", "north", passed())
    session = worlds.take_up(made)
    session.abort("to be undone")
    worlds.run(made, undo_runbook(session.record, made.topology))
    assert worlds.standing(made) == before


def test_undo_can_be_resumed_and_is_guarded() -> None:
    made = worlds.estate()
    record = worlds.run(made, drain(made))
    worlds.see(made, "web", "east", failed("500"))
    refusal = worlds.plan(made, undo_runbook(record, made.topology)).refusal
    assert isinstance(refusal, Refused)
    assert refusal.guard == "target-health"


# --- two at once ---


def test_a_second_run_on_a_held_region_is_told_who_and_since_when() -> None:
    made = worlds.estate()
    first, planned = started(made, drain(made))
    worlds.clock(made).advance(90)
    with pytest.raises(Locked) as locked:
        worlds.run(made, drain(made))
    assert locked.value.exit_code == 5
    assert f"region east is held by run {first.record.id}" in locked.value.what
    assert first.record.owner["by"] in locked.value.what
    assert first.record.owner["host"] in locked.value.what
    assert "2023-11-14T22:13:20.000Z" in locked.value.what
    assert read_record(made, runs(made)[-1]).status == "refused"
    assert first.go(planned, {}).status == "done"


def test_only_one_region_is_out_at_a_time() -> None:
    made = worlds.estate(worlds.THREE)
    started(made, drain(made))
    with pytest.raises(Locked, match="region east is held"):
        worlds.run(made, worlds.book(made, "drain", region="west"))


def test_a_look_at_health_is_not_kept_from_anybody() -> None:
    made = worlds.estate()
    started(made, drain(made))
    assert worlds.run(made, worlds.book(made, "check")).status == "done"


def test_a_run_frees_its_regions_however_it_ends() -> None:
    made = worlds.estate()
    session, _ = started(made, drain(made))
    session.abort("not today")
    assert read_record(made, session.record.id).status == "aborted"
    assert worlds.run(made, drain(made)).status == "done"


def test_who_was_taken_over_makes_no_further_change() -> None:
    made = worlds.estate(worlds.THREE)
    old, planned = started(made, worlds.book(made, "evacuate-region", region="east"))
    taken: list[Any] = []
    router = worlds.routers(made)["edge"]
    router.after_write = once(lambda: taken.append(worlds.take_up(made)))
    with pytest.raises(Locked, match="was taken over by another process"):
        old.go(planned, {})
    written = len(worlds.log(made))
    assert written < len(planned.changes)
    with pytest.raises(Locked):
        old.journal.append("note", step="drain", text="the old one writes on")
    assert len(worlds.log(made)) == written
    [newcomer] = taken
    newcomer.go(newcomer.plan(()), {})
    calm = worlds.estate(worlds.THREE)
    worlds.run(calm, worlds.book(calm, "evacuate-region", region="east"))
    assert worlds.standing(made) == worlds.standing(calm)
    assert len(worlds.log(made)) == len(worlds.log(calm))


def test_a_run_of_a_living_process_is_not_taken_by_accident() -> None:
    made = worlds.estate()
    session, _ = started(made, drain(made))
    with pytest.raises(Locked, match="is being carried out by process"):
        type(session).take_up(made, session.runbook, session.record.id, Hands(), take_over=False)
    assert [event["kind"] for event in worlds.events(made)] == ["run-started"]


def test_a_run_that_is_over_cannot_be_taken_up() -> None:
    made = worlds.estate()
    record = worlds.run(made, drain(made))
    with pytest.raises(Usage, match="it ended as done"):
        worlds.take_up(made, record.id)


# --- indeterminate ---

LOST = Indeterminate("the connection was lost", next="read it back")


@pytest.mark.parametrize("when", ["before_write", "after_write"])
@pytest.mark.parametrize("error", [LOST, OSError("broken pipe")], ids=["told", "unforeseen"])
def test_a_lost_answer_is_read_back_and_never_blindly_repeated(when: str, error: Exception) -> None:
    made = worlds.estate()
    setattr(worlds.routers(made)["dns"], when, once(raising(error)))
    session, planned = started(made, drain(made))
    if when == "after_write":
        assert session.go(planned, {}).status == "done"
    else:
        with pytest.raises(Failed, match="the write was not completed"):
            session.go(planned, {})
        record = read_record(made, session.record.id)
        assert (record.status, record.exit_code) == ("stopped", 6)
        assert worlds.resume(made).status == "done"
    assert len(worlds.log(made)) == 1
    assert worlds.world(made).routes["web@dns"] == DEAD


@pytest.mark.parametrize("when", ["before_write", "after_write"])
def test_what_cannot_be_read_back_is_indeterminate_and_resumable(when: str) -> None:
    made = worlds.estate()
    router = worlds.routers(made)["dns"]

    def lose() -> None:
        router.unreachable.add("web@dns")
        raise LOST

    setattr(router, when, once(lose))
    session, planned = started(made, drain(made))
    with pytest.raises(Indeterminate) as found:
        session.go(planned, {})
    assert found.value.exit_code == 4
    assert "may or may not have happened" in found.value.what
    record = read_record(made, session.record.id)
    assert (record.status, record.exit_code, len(record.pending)) == ("stopped", 4, 1)
    with pytest.raises(Indeterminate):
        worlds.resume(made)
    assert len(read_record(made, session.record.id).pending) == 1
    router.unreachable.clear()
    assert worlds.resume(made).status == "done"
    assert len(worlds.log(made)) == 1


def test_an_old_value_is_not_believed_before_the_port_can_no_longer_write() -> None:
    made = worlds.estate()
    router = worlds.routers(made)["dns"]
    router.write_timeout = 20.0
    router.before_write = once(raising(LOST))
    session, planned = started(made, drain(made))
    with pytest.raises(Failed):
        session.go(planned, {})
    assert sum(worlds.clock(made).slept) >= 20


def test_a_promotion_whose_answer_was_lost_is_seen_to_have_happened() -> None:
    made = worlds.estate()
    lose = [lambda: None, raising(LOST)]
    worlds.databases(made)["orders"].after_write = lambda _: lose.pop(0)() if lose else None
    assert worlds.run(made, worlds.book(made, "promote", to="west")).status == "done"
    assert roles(made) == [Role.REPLICA, Role.PRIMARY]
    assert len(worlds.log(made)) == 3


# --- commands, approvals ---


def command(path: Path, line: str, more: str = "") -> str:
    argv = json.dumps(["sh", "-c", line, str(path)])
    return f"runbook: r\nsteps:\n- id: deploy\n  command: {{argv: {argv}{more}}}\n- {{id: rest, wait: 1s}}\n"


class CutError(BaseException):
    pass


def cut_off(path: Path, more: str = "") -> Estate:
    """An estate with a run that was killed when its command had done its work."""
    made = worlds.estate()
    store = worlds.store(made)

    def cut(_: str, __: int, event: str) -> None:
        if '"kind":"outcome"' in event:
            raise CutError

    store.before_append = cut
    with pytest.raises(CutError):
        worlds.run(made, worlds.book(made, command(path, 'echo done >> "$0"', more)))
    store.before_append = None
    return made


def test_a_command_that_was_cut_off_is_not_run_again_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "file"
    made = cut_off(path)
    for _ in range(2):
        with pytest.raises(Indeterminate) as found:
            worlds.resume(made)
        assert found.value.exit_code == 4
        assert "--retry deploy" in found.value.next
        assert "--skip deploy" in found.value.next
    assert path.read_text() == "done\n"


def test_a_command_that_was_cut_off_can_be_skipped_for_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "file"
    made = cut_off(path)
    session = worlds.take_up(made)
    session.skip("deploy", "it is done")
    assert session.go(session.plan(()), {}).status == "done"
    assert path.read_text() == "done\n"
    [skipped] = worlds.events(made, kind="step-skipped")
    assert skipped["reason"] == "it is done"


def test_a_command_that_was_cut_off_can_be_retried(tmp_path: Path) -> None:
    path = tmp_path / "file"
    made = cut_off(path)
    session = worlds.take_up(made)
    session.retry("deploy")
    assert session.go(session.plan(()), {}).status == "done"
    assert path.read_text() == "done\ndone\n"


def test_a_repeatable_command_that_was_cut_off_is_run_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    made = cut_off(path, ", repeatable: true")
    assert worlds.resume(made).status == "done"
    assert path.read_text() == "done\ndone\n"


def test_a_command_that_ended_is_not_run_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    made = worlds.estate()
    text = command(path, 'echo done >> "$0"') + "- {id: ask, approve: go on}\n"
    with pytest.raises(Interrupted):
        worlds.run(made, worlds.book(made, text))
    worlds.resume(made, hands=Hands(approve=lambda *_: True))
    assert path.read_text() == "done\n"


@pytest.mark.parametrize(
    ("line", "more", "says"),
    [
        ("echo no room; exit 3", "", "exit code 3: no room"),
        ("kill -9 $$", "", "ended by signal 9"),
        ("sleep 60", ", timeout: 100ms", "did not end within 0.1 s and was killed"),
    ],
)
def test_a_command_that_fails_stops_the_run_there(tmp_path: Path, line: str, more: str, says: str) -> None:
    made = worlds.estate()
    with pytest.raises(Failed) as found:
        worlds.run(made, worlds.book(made, command(tmp_path / "file", line, more)))
    assert says in found.value.what
    record = read_record(made, runs(made)[-1])
    assert (record.status, record.exit_code) == ("stopped", 6)
    assert record.steps["deploy"].status == "failed"
    assert "rest" not in record.steps


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("[no-such-program-anywhere]", "no-such-program-anywhere cannot be started"),
        ("[/]", "/ cannot be started"),
        ("{argv: [ls], env: {PATH: /nowhere}}", "ls cannot be started"),
        ("{argv: ['true'], env: {TOKEN: {env: NO_SUCH_VARIABLE}}}", "NO_SUCH_VARIABLE is not set"),
    ],
)
def test_a_command_that_cannot_be_started_is_told_before_anything_is_changed(what: str, says: str) -> None:
    made = worlds.estate()
    text = f"runbook: r\nsteps:\n- drain: {{region: east}}\n- command: {what}\n"
    refusal = worlds.plan(made, worlds.book(made, text)).refusal
    assert isinstance(refusal, Failed)
    assert says in refusal.what
    assert worlds.log(made) == []


def test_a_program_that_an_earlier_command_makes_is_not_asked_for_in_the_plan(tmp_path: Path) -> None:
    made = worlds.estate()
    program = tmp_path / "deploy"
    making = f"printf '#!/bin/sh\\n' > {program} && chmod +x {program}"
    text = f"runbook: r\nsteps:\n- command: [sh, -c, {json.dumps(making)}]\n- command: [{program}]\n"
    assert worlds.run(made, worlds.book(made, text)).status == "done"


MENDED = """
runbook: mended
steps:
  - {id: mend, command: ["true"]}
  - {id: well, check: {regions: west}}
  - {id: back, restore: {region: west}}
"""


@pytest.mark.parametrize(
    ("text", "turns", "refused", "ends", "weights"),
    [
        (MENDED, [failed("it is being built"), passed("it answers")], None, "done", {"east": 100, "west": 100}),
        (MENDED, [failed("it is being built")], None, "stopped", {"east": 200, "west": 0}),
        (MENDED.replace("  - {id: well, check: {regions: west}}\n", ""), [failed("it is ill")], Refused, "", {}),
        (MENDED.replace('command: ["true"]', "wait: 0s"), [failed("it is ill")], Failed, "", {}),
    ],
    ids=["by the command", "not by the command", "nobody looks at it afterwards", "by nothing"],
)
def test_what_a_command_is_to_mend_is_looked_at_in_the_run(
    text: str, turns: list[Verdict], refused: type | None, ends: str, weights: dict[str, int]
) -> None:
    made = worlds.estate()
    worlds.put(made, "web@dns", {"east": 200, "west": 0}, 60)
    worlds.see(made, "web", "west", *turns)
    planned = worlds.plan(made, worlds.book(made, text))
    assert type(planned.refusal) is (refused or type(None))
    if refused:
        return
    session = worlds.begin(made, planned)
    if ends == "done":
        session.go(planned, {})
    else:
        with pytest.raises(Failed, match="it is being built"):
            session.go(planned, {})
    assert read_record(made, runs(made)[-1]).status == ends
    assert worlds.world(made).routes["web@dns"] == RouteState(weights, 60)


def test_nobodys_traffic_waits_for_a_message() -> None:
    made = worlds.estate(worlds.TWO + "notifiers: {chat: {memory: {}}}\n")

    def refuse(message: str) -> None:
        raise Failed(f"no route to the chat for {message}")

    made.notifiers["chat"].send = refuse  # type: ignore[method-assign]
    text = "runbook: r\nsteps:\n- notify: {to: chat, message: east leaves}\n- drain: {region: east}\n"
    record = worlds.run(made, worlds.book(made, text))
    assert record.status == "done"
    assert record.notes == ["chat was not told 'east leaves': no route to the chat for east leaves"]
    assert worlds.world(made).routes["web@dns"] == DEAD


APPROVAL = "runbook: r\nsteps:\n- {id: ask, approve: shall we}\n- {id: go, drain: {region: east}}\n"


def test_an_approval_without_anybody_leaves_the_run_to_be_resumed() -> None:
    made = worlds.estate()
    with pytest.raises(Interrupted) as found:
        worlds.run(made, worlds.book(made, APPROVAL))
    assert found.value.exit_code == 6
    assert "--approve ask" in found.value.next
    record = read_record(made, runs(made)[-1])
    assert (record.status, record.exit_code) == ("stopped", 6)
    assert worlds.log(made) == []
    asked: list[str] = []
    worlds.resume(made, hands=Hands(approve=lambda step, message: bool(asked.append(f"{step}: {message}")) or True))
    assert asked == ["ask: shall we"]
    assert worlds.world(made).routes["web@dns"] == DEAD


def test_a_refused_approval_stops_before_what_it_guards() -> None:
    made = worlds.estate()
    with pytest.raises(Failed, match="was not approved"):
        worlds.run(made, worlds.book(made, APPROVAL), Hands(approve=lambda *_: False))
    assert worlds.log(made) == []


# --- side by side ---


def test_independent_steps_run_side_by_side() -> None:
    made = worlds.estate(SIDE_BY_SIDE)
    barrier = threading.Barrier(2)
    for router in worlds.routers(made).values():
        router.before_write = lambda _: barrier.wait(30) and None
    assert worlds.run(made, worlds.book(made, BOTH)).status == "done"
    assert not barrier.broken
    assert len(worlds.log(made)) == 2


def test_the_ports_of_one_change_are_written_side_by_side() -> None:
    made = worlds.estate(SIDE_BY_SIDE)
    barrier = threading.Barrier(2)
    for router in worlds.routers(made).values():
        router.before_write = lambda _: barrier.wait(30) and None
    assert worlds.run(made, drain(made)).status == "done"
    assert not barrier.broken


@pytest.mark.parametrize("book", [BOTH, "drain"], ids=["steps", "ports"])
def test_what_fails_does_not_hide_what_was_done_beside_it(book: str) -> None:
    made = worlds.estate(SIDE_BY_SIDE)
    barrier = threading.Barrier(2)

    def fail(_: Any) -> None:
        barrier.wait(30)
        raise Failed("the edge is full")

    worlds.routers(made)["dns"].before_write = lambda _: barrier.wait(30) and None
    worlds.routers(made)["edge"].before_write = fail
    inputs = {} if "\n" in book else {"region": "east"}
    with pytest.raises(Failed, match="the edge is full"):
        worlds.run(made, worlds.book(made, book, **inputs))
    outcomes = {event["result"] for event in worlds.events(made, kind="outcome")}
    assert outcomes == {"done", "failed"}
    record = read_record(made, runs(made)[-1])
    assert (record.status, record.pending) == ("stopped", [])
    assert [change.resource for change in record.applied] == ["route web@dns"]
    worlds.routers(made)["dns"].before_write = worlds.routers(made)["edge"].before_write = None
    assert worlds.resume(made).status == "done"
    assert len(worlds.log(made)) == 2


def test_a_step_that_fails_stops_the_one_beside_it() -> None:
    made = worlds.estate()
    text = """
runbook: r
steps:
- {id: hold, wait: 1h, needs: []}
- {id: deploy, command: [sh, -c, 'exit 3'], needs: []}
"""
    clock = worlds.clock(made)
    waits = threading.Event()

    def sleep(_: float, stop: threading.Event | None = None) -> bool:
        waits.set()
        assert stop is not None
        return not stop.wait(60)

    clock.sleep = sleep  # type: ignore[method-assign]
    book = worlds.book(made, text)
    hands = Hands(progress=lambda step, _: waits.wait(30) and None if step == "deploy" else None)
    with pytest.raises(Failed, match="exit code 3"):
        worlds.run(made, book, hands)
    assert not hands.stop.is_set()
    record = read_record(made, runs(made)[-1])
    assert {name: step.status for name, step in record.steps.items()} == {"hold": "running", "deploy": "failed"}


SAME_ROUTE = """
runbook: r
steps:
- {id: out, drain: {region: east}, needs: []}
- {id: by-hand, shift: {weights: {west: 7}}, needs: %s}
"""
SAME_DATABASE = """
runbook: r
steps:
- {id: out, promote: {away_from: east}, needs: []}
- {id: back, promote: {to: east}, needs: %s}
"""


@pytest.mark.parametrize(
    ("text", "what"), [(SAME_ROUTE, "route web@dns"), (SAME_DATABASE, "database orders")], ids=["route", "database"]
)
def test_two_steps_that_change_the_same_must_be_put_in_order(text: str, what: str) -> None:
    made = worlds.estate()
    refusal = worlds.plan(made, worlds.book(made, text % "[]")).refusal
    assert isinstance(refusal, Refused)
    assert f"both change {what}" in refusal.what
    assert "needs: [out]" in refusal.next
    assert worlds.plan(made, worlds.book(made, text % "[out]")).refusal is None


def test_a_record_can_be_read_while_another_step_writes() -> None:
    record = Record("r")
    change = RouteChange("r", DEAD, DEAD, "")

    class Meddling(tuple[Change, ...]):
        def __iter__(self) -> Any:
            record.intents[len(record.intents) + 1] = Intent(len(record.intents) + 1, "s", (change,), 0.0)
            return super().__iter__()

    record.intents[1] = Intent(1, "s", Meddling((change,)), 0.0, outcome="done", made=Meddling((change,)))
    assert record.applied == [change]
    assert record.before("r") == change


# --- stopping by hand ---


def stops_at(made: Estate, wanted: Callable[[Change], bool]) -> Hands:
    """Somebody presses Ctrl-C while the wanted change is in flight."""
    hands = Hands()

    def look(changes: Any) -> None:
        if any(map(wanted, changes if isinstance(changes, list | tuple) else [changes])):
            hands.stop.set()

    for port in (*worlds.routers(made).values(), *worlds.databases(made).values()):
        port.before_write = look
    return hands


def test_a_stop_finishes_the_change_in_flight_and_leaves_a_known_state() -> None:
    made = worlds.estate(worlds.THREE)
    hands = stops_at(made, lambda change: isinstance(change, RouteChange) and change.after.weights["east"] > 0)
    with pytest.raises(Interrupted) as found:
        worlds.run(made, worlds.book(made, "evacuate-region", region="east"), hands)
    assert found.value.exit_code == 6
    record = read_record(made, runs(made)[-1])
    assert (record.status, record.exit_code, record.pending) == ("stopped", 6, [])
    assert worlds.shape(record.applied) == worlds.shape(worlds.log(made))
    assert record.applied
    assert worlds.resume(made).status == "done"
    assert worlds.world(made).primaries("orders") == ("west",)


def test_a_stop_never_falls_between_fence_and_promote() -> None:
    made = worlds.estate()
    hands = stops_at(made, lambda change: isinstance(change, MemberChange) and change.after is Role.FENCED)
    with pytest.raises(Interrupted):
        worlds.run(made, worlds.book(made, "promote", to="west"), hands)
    assert worlds.world(made).primaries("orders") == ("west",)
    assert worlds.resume(made).status == "done"
    assert roles(made) == [Role.REPLICA, Role.PRIMARY]


@pytest.mark.parametrize("text", ["wait: 1h", "drain: {region: east, soak: 1h}"])
def test_a_stop_ends_a_wait(text: str) -> None:
    made = worlds.estate()
    hands = Hands()
    hands.progress = lambda _, line: hands.stop.set() if line.startswith(("wait", "soak")) else None
    with pytest.raises(Interrupted):
        worlds.run(made, worlds.book(made, f"runbook: r\nsteps:\n- {text}\n"), hands)
    assert sum(worlds.clock(made).slept) < 3600


# --- promotion ---


def fails_to_promote(made: Estate) -> None:
    def fail(change: MemberChange) -> None:
        if change.after is Role.PRIMARY and change.region == "west":
            raise Failed("the replica refuses", next="look at its log")

    worlds.databases(made)["orders"].before_write = fail


def never_catches_up(made: Estate) -> None:
    worlds.databases(made)["orders"].state.commit("one")

    def pause(change: MemberChange) -> None:
        if change.after is Role.FENCED:
            west = worlds.copy_of(made, "orders", "west")
            west.paused, west.orders = True, []

    worlds.databases(made)["orders"].after_write = pause


@pytest.mark.parametrize("harm", [fails_to_promote, never_catches_up])
def test_a_switchover_that_fails_after_the_fence_lets_the_source_write_again(harm: Callable[[Estate], None]) -> None:
    made = worlds.estate()
    harm(made)
    with pytest.raises(Failed) as found:
        worlds.run(made, worlds.book(made, "promote", to="west"))
    assert "takes writes in east as before" in found.value.next
    assert worlds.world(made).primaries("orders") == ("east",)
    assert worlds.databases(made)["orders"].state.commit("two") == "east"
    record = read_record(made, runs(made)[-1])
    assert [(change.region, change.after) for change in record.applied if isinstance(change, MemberChange)] == [
        ("east", Role.FENCED),
        ("east", Role.PRIMARY),
    ]
    worlds.databases(made)["orders"].before_write = worlds.databases(made)["orders"].after_write = None
    worlds.copy_of(made, "orders", "west").paused = False
    assert worlds.resume(made).status == "done"
    assert worlds.world(made).primaries("orders") == ("west",)


def test_where_not_even_that_works_it_says_so() -> None:
    made = worlds.estate()

    def fail(change: MemberChange) -> None:
        if change.after is Role.PRIMARY:
            raise Failed("the disk is full")

    worlds.databases(made)["orders"].before_write = fail
    with pytest.raises(Failed, match="the disk is full; and east could not be made to take writes again") as found:
        worlds.run(made, worlds.book(made, "promote", to="west"))
    assert "nobody takes writes to orders now" in found.value.next
    assert roles(made) == [Role.FENCED, Role.REPLICA]


UNPLANNED = {"region": "east", "pace": "immediate"}


def lost(*, device: bool) -> Estate:
    made = worlds.estate()
    worlds.databases(made)["orders"].state.commit("one")
    worlds.dark(made, "east")
    worlds.copy_of(made, "orders", "east").can_fence = device
    return made


def test_a_lost_primary_is_fenced_by_its_device_and_the_loss_accepted_by_name() -> None:
    made = lost(device=True)
    runbook = worlds.book(made, "evacuate-region", **UNPLANNED)
    refusal = worlds.plan(made, runbook).refusal
    assert isinstance(refusal, Refused)
    assert refusal.guard == "data-loss"
    assert "--accept data-loss" in refusal.next
    worlds.run(made, runbook, None, "data-loss")
    assert roles(made) == [Role.FENCED, Role.PRIMARY]
    moves = [change for change in worlds.log(made) if isinstance(change, MemberChange)]
    assert [(move.region, move.after, move.planned) for move in moves] == [
        ("east", Role.FENCED, False),
        ("west", Role.PRIMARY, False),
    ]


def test_a_lost_primary_without_a_device_must_be_accepted_by_name_too() -> None:
    made = lost(device=False)
    runbook = worlds.book(made, "evacuate-region", **UNPLANNED)
    for accepted in ([], ["data-loss"]):
        refusal = worlds.plan(made, runbook, *accepted).refusal
        assert isinstance(refusal, Refused)
        assert refusal.guard == "unfenced-primary"
    worlds.run(made, runbook, None, "unfenced-primary", "data-loss")
    assert worlds.copy_of(made, "orders", "west").role is Role.PRIMARY
    judged = {event["guard"]: event["accepted"] for event in worlds.events(made, kind="guard")}
    assert judged == {"unfenced-primary": True, "data-loss": True}


def test_a_proof_of_a_device_counts_after_a_kill_in_the_plan_too() -> None:
    """A fence leaves no trace that the database itself could be asked for: the journal is the proof."""
    made = lost(device=True)
    database = worlds.databases(made)["orders"]

    def hide(change: MemberChange) -> None:
        if change.after is Role.FENCED:
            worlds.copy_of(made, "orders", "east").role = Role.PRIMARY

    def kill(change: MemberChange) -> None:
        if change.after is Role.PRIMARY:
            raise CutError

    database.after_write, database.before_write = hide, kill
    runbook = worlds.book(made, "evacuate-region", **UNPLANNED)
    with pytest.raises(CutError):
        worlds.run(made, runbook, None, "data-loss")
    database.before_write = None
    assert worlds.world(made).databases["orders"]["east"].role is Role.UNKNOWN
    session = worlds.take_up(made)
    planned = session.plan(session.record.accepted)
    assert planned.refusal is None
    fences = [
        change for change in planned.changes if isinstance(change, MemberChange) and change.after is Role.FENCED
    ]
    assert fences == []
    session.go(planned, session.record.accepted)
    fenced = [one for one in worlds.log(made) if isinstance(one, MemberChange) and one.after is Role.FENCED]
    assert len(fenced) == 1


def test_an_old_primary_that_the_run_itself_turned_off_is_brought_back_by_its_resume() -> None:
    """Killed while it is off to be rewound: nobody else will think of starting it."""
    made = worlds.estate()

    def kill(change: MemberChange) -> None:
        if change.after is Role.REPLICA:
            worlds.copy_of(made, "orders", "east").role = Role.STOPPED
            raise CutError

    database = worlds.databases(made)["orders"]
    database.before_write = kill
    with pytest.raises(CutError):
        worlds.run(made, worlds.book(made, "evacuate-region", region="east"))
    database.before_write = None
    assert worlds.resume(made).status == "done"
    member = worlds.world(made).databases["orders"]["east"]
    assert (member.role, member.streaming) == (Role.REPLICA, True)


def test_an_old_primary_that_somebody_else_turned_off_is_left_alone() -> None:
    made = worlds.estate()
    worlds.run(made, worlds.book(made, "promote", to="west"))
    worlds.copy_of(made, "orders", "east").role = Role.STOPPED
    assert (
        worlds.plan(made, worlds.book(made, "evacuate-region", region="east")).changes[-1].resource == "route web@dns"
    )


def test_what_a_lost_primary_alone_has_is_not_thrown_away_without_a_word() -> None:
    made = lost(device=True)
    worlds.run(made, worlds.book(made, "evacuate-region", **UNPLANNED), None, "data-loss")
    east = worlds.copy_of(made, "orders", "east")
    east.unreachable, east.role, east.orders = "", Role.PRIMARY, ["one", "only here"]
    worlds.see(made, "web", "east", passed())
    assert worlds.world(made).databases["orders"]["east"].role is Role.DIVERGED
    refusal = worlds.plan(made, worlds.book(made, "restore-region", region="east")).refusal
    assert isinstance(refusal, Refused)
    assert refusal.guard == "diverged-primary"
    assert "1 commits" in refusal.what
    worlds.run(made, worlds.book(made, "restore-region", region="east"), None, "diverged-primary")
    assert worlds.world(made).primaries("orders") == ("east",)


def test_two_primaries_are_nobodys_to_choose_from() -> None:
    made = worlds.estate()
    west = worlds.copy_of(made, "orders", "west")
    west.role, west.follows = Role.PRIMARY, ""
    for runbook in (worlds.book(made, "promote", to="west"), worlds.book(made, "evacuate-region", region="east")):
        refusal = worlds.plan(made, runbook, *WAIVABLE).refusal
        assert isinstance(refusal, Refused)
        assert refusal.guard == "split-brain"


NEEDING = worlds.TWO.replace("{up: {memory: {}}}", "{up: {memory: {}}, orders: {memory: {}, needs: [orders]}}")


@pytest.mark.parametrize(("after", "ends"), [(passed("mended"), "done"), (failed("still 500"), "stopped")])
def test_a_check_that_wants_for_a_primary_is_set_aside_until_there_is_one(after: Verdict, ends: str) -> None:
    made = worlds.estate(NEEDING)
    worlds.dark(made, "east")
    worlds.see(made, "web", "west", failed("500"), check="orders")
    promoted = once(lambda: worlds.see(made, "web", "west", after, check="orders"))
    worlds.databases(made)["orders"].after_write = lambda change: promoted() if change.after is Role.PRIMARY else None
    runbook = worlds.book(made, "evacuate-region", **UNPLANNED)
    if ends == "done":
        worlds.run(made, runbook, None, "data-loss")
    else:
        with pytest.raises(Failed, match="still 500"):
            worlds.run(made, runbook, None, "data-loss")
    record = read_record(made, runs(made)[-1])
    assert record.status == ends
    assert worlds.world(made).routes["web@dns"] == DEAD
    assert worlds.world(made).primaries("orders") == ("west",)


def test_a_check_that_wants_for_nothing_is_never_set_aside() -> None:
    made = worlds.estate(NEEDING)
    worlds.see(made, "web", "west", failed("500"), check="orders")
    refusal = worlds.plan(made, worlds.book(made, "evacuate-region", region="east")).refusal
    assert isinstance(refusal, Failed)
    assert "500" in refusal.what


# --- time ---


def test_a_lowered_ttl_takes_effect_when_the_old_one_is_over() -> None:
    made = worlds.estate(TTL)
    worlds.run(made, drain(made))
    lowered, drained = worlds.log(made)
    assert isinstance(lowered, RouteChange)
    assert isinstance(drained, RouteChange)
    assert (lowered.before.ttl, lowered.after.ttl) == (60, 5)
    assert lowered.before.weights == lowered.after.weights
    assert drained.after.weights == {"east": 0, "west": 200}
    assert worlds.clock(made).slept == [60.0, 5.0]


@pytest.mark.parametrize(("east", "slept"), [(100, [60.0, 5.0]), (0, [])], ids=["to be drained", "drained"])
def test_a_ttl_that_somebody_lowered_just_before_is_waited_out_all_the_same(east: int, slept: list[float]) -> None:
    made = worlds.estate(TTL)
    worlds.put(made, "web@dns", {"east": east, "west": 100}, ttl=5)
    worlds.run(made, drain(made))
    assert worlds.clock(made).slept == slept


def test_at_once_waits_for_no_ttl() -> None:
    made = worlds.estate(TTL)
    worlds.run(made, worlds.book(made, "drain", region="east", pace="immediate"))
    assert len(worlds.log(made)) == 1
    assert worlds.clock(made).slept == []


def test_a_kill_in_the_middle_of_the_wait_leaves_the_rest_of_it_to_wait_for() -> None:
    made = worlds.estate(TTL)
    clock = worlds.clock(made)
    sleep = clock.sleep

    def killed(*_: Any) -> bool:
        clock.advance(20.0)
        raise CutError

    clock.sleep = killed  # type: ignore[method-assign]
    with pytest.raises(CutError):
        worlds.run(made, drain(made))
    clock.sleep = sleep  # type: ignore[method-assign]
    worlds.resume(made)
    assert clock.slept == [40.0, 5.0]
    assert len(worlds.log(made)) == 2


def test_a_clock_that_was_set_back_does_not_make_the_wait_longer() -> None:
    made = worlds.estate(TTL)
    clock = worlds.clock(made)
    sleep = clock.sleep

    def killed(*_: Any) -> bool:
        raise CutError

    clock.sleep = killed  # type: ignore[method-assign]
    with pytest.raises(CutError):
        worlds.run(made, drain(made))
    clock.sleep = sleep  # type: ignore[method-assign]
    clock.set_wall(clock.wall() - 86_400)
    worlds.resume(made)
    assert clock.slept[0] == 60.0


def test_what_never_settles_is_given_up_at_its_limit() -> None:
    made = worlds.estate(TTL.replace("{ttl: 5s}", "{settle: 30s}"))
    worlds.routers(made)["dns"].unsettled.add("web@dns")
    with pytest.raises(Failed, match="has not said that it is applied"):
        worlds.run(made, drain(made))
    assert 30 <= sum(worlds.clock(made).slept) < 32
    worlds.routers(made)["dns"].unsettled.clear()
    assert worlds.resume(made).status == "done"
    assert len(worlds.log(made)) == 1


def test_a_region_is_waited_for_as_long_as_the_check_says() -> None:
    made = worlds.estate(TTL)
    worlds.run(made, drain(made))
    worlds.see(made, "web", "east", passed(), *[unknown("no answer")] * 5, passed())
    worlds.run(made, worlds.book(made, "restore", region="east"))
    assert worlds.world(made).routes["web@dns"] == RouteState({"east": 100, "west": 100}, 60)


# --- the journal ---


@pytest.mark.parametrize("allowed", range(12))
def test_a_full_disk_stops_the_run_before_its_next_change(allowed: int) -> None:
    made = worlds.estate()
    store = worlds.store(made)
    left = [allowed]

    def full(*_: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Failed("the journal cannot be used: the disk is full", next="free some space")

    store.before_append = full
    with pytest.raises(Failed, match="the disk is full"):
        worlds.run(made, worlds.book(made, "evacuate-region", region="east"))
    journalled = [event for run in runs(made) for event in worlds.events(made, run, "intent")]
    assert len(worlds.log(made)) <= len(journalled)
    assert sum(map(len, store._state.streams.values())) == allowed
    store.before_append = None
    if not runs(made):
        worlds.run(made, worlds.book(made, "evacuate-region", region="east"))
    else:
        worlds.resume(made)
    assert worlds.world(made).primaries("orders") == ("west",)
    assert len(worlds.log(made)) == 4


@pytest.mark.parametrize(
    "harm",
    [
        lambda lines: lines.__setitem__(1, lines[1].replace("survivors", "survivor")),
        lambda lines: lines.__delitem__(2),
        lambda lines: lines.insert(2, lines[2]),
        lambda lines: lines.reverse(),
        lambda lines: lines.__setitem__(1, "{}"),
        lambda lines: lines.__setitem__(1, "[1]"),
        lambda lines: lines.__setitem__(1, '{"seq": 2'),
        lambda lines: lines.__setitem__(1, ""),
    ],
)
def test_an_altered_journal_is_found_out(harm: Callable[[list[str]], None]) -> None:
    made = worlds.estate()
    record = worlds.run(made, drain(made))
    lines = worlds.store(made)._state.streams[f"run/{record.id}"]
    assert len(list(Journal(made.store, record.id, made.clock).replay())) == len(lines)
    harm(lines)
    with pytest.raises(Failed, match=f"the journal of run {record.id} was altered"):
        read_record(made, record.id)


def test_an_unforeseen_error_of_a_port_is_an_unknown_not_a_crash() -> None:
    made = worlds.estate(worlds.THREE)

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("somebody's provider")

    made.routers["edge"].read = broken  # type: ignore[method-assign]
    made.databases["orders"].read = broken  # type: ignore[method-assign]
    next(iter(made.probes.values())).probe = broken  # type: ignore[method-assign]
    now = worlds.world(made)
    assert isinstance(now.routes["web@edge"], Unknown)
    assert "ZeroDivisionError" in now.routes["web@edge"].why
    assert isinstance(now.routes["web@dns"], RouteState)
    assert {member.role for member in now.databases["orders"].values()} == {Role.UNKNOWN}
    assert isinstance(now.databases["carts"]["west"], Member)
    assert str(now.checks[next(iter(made.probes))].outcome) == "unknown"
