"""A canary in every place where a secret can be: it never reaches a journal, a plan, an error or progress."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from failover import secret
from failover.engine.estate import Estate
from failover.engine.plan import Plan, describe
from failover.engine.runner import Hands, read_record, runs
from failover.errors import Conflict, Failed, FailoverError, Indeterminate, Interrupted
from failover.secret import Secret
from failover.verdict import failed, passed, unknown
from failover.world import Member, Role, Unknown
from tests import worlds

CANARIES = {
    "plain": "canary-5f3a9b",
    "quoted": 'can"ary\\5f3a9b',
    "accented": "canàry→5f3a9b",
    "spaced": "canary 5f3a9b\twith a tab",
}
Harm = Callable[[Estate, str], None]


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test has told the process to strike out is none of the next one's."""
    monkeypatch.setattr(secret, "_known", set())


@pytest.fixture(params=CANARIES.values(), ids=list(CANARIES))
def canary(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A secret that the process has read from its environment."""
    value: str = request.param
    monkeypatch.setenv("CANARY", value)
    assert Secret({"env": "CANARY"}).reveal() == value
    return value


def texts(value: Any) -> Iterator[str]:
    """Every text anywhere in `value`."""
    if isinstance(value, str):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from texts(getattr(value, field.name))
    elif isinstance(value, dict):
        yield from texts(list(value) + list(value.values()))
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from texts(item)


def everything(made: Estate, lines: list[str], error: FailoverError | None, plan: Plan | None = None) -> list[str]:
    """Whatever anybody could come to read of a run."""
    found = [*lines]
    for stream in made.store.streams(""):
        for line in made.store.read(stream):
            found += [line, *texts(json.loads(line))]
    for run in runs(made):
        found += list(texts(read_record(made, run)))
    if error is not None:
        found += [str(error), repr(error), error.what, error.where, error.next, *texts(getattr(error, "seen", ()))]
    if plan is not None:
        found += [plan.hash, *texts(plan.before), *texts(plan.after)]
        found += [text for step in plan.steps for action in step.actions for text in texts(describe(action))]
        found += [text for step in plan.steps for text in texts(step.verdicts)]
        found += [text for _, judgement in plan.judgements for text in texts(judgement.verdict)]
        found += [str(plan.refusal), *texts(plan.refusal.next if plan.refusal else "")]
    return found


def silent(canary: str, found: list[str]) -> None:
    assert len(found) > 10
    assert [text for text in found if canary in text or json.dumps(canary)[1:-1] in text] == []


def heard(lines: list[str]) -> Hands:
    return Hands(progress=lambda step, line: lines.append(f"{step} {line}"))


def carried_out(made: Estate, runbook: Any, lines: list[str]) -> FailoverError | None:
    planned = worlds.plan(made, runbook)
    session = worlds.begin(made, planned, heard(lines))
    session.journal.listeners.append(lambda event: lines.extend(texts(dict(event))))
    try:
        session.go(planned, {})
    except FailoverError as error:
        return error
    return None


ECHO = """
runbook: r
steps:
- id: deploy
  command:
    argv: [sh, -c, 'printf "%%s\\n" "token: $TOKEN"; printf "%%s\\n" "$TOKEN" >&2; exit %d']
    env: {TOKEN: {%s: "%s"}}
"""


@pytest.mark.parametrize("code", [0, 7])
@pytest.mark.parametrize("kind", ["env", "file"])
def test_a_command_that_says_its_secret(code: int, kind: str, canary: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(canary + "\n")
    where = "CANARY" if kind == "env" else str(tmp_path / "token")
    made, lines = worlds.estate(), list[str]()
    runbook = worlds.book(made, ECHO % (code, kind, where))
    error = carried_out(made, runbook, lines)
    assert (error is None) is (code == 0)
    silent(canary, everything(made, lines, error, worlds.plan(made, runbook)))
    [outcome] = worlds.events(made, kind="outcome")
    assert outcome["output"] == ["token: [secret]", "[secret]"]


def test_a_secret_of_several_lines_is_struck_out_line_by_line(tmp_path: Path) -> None:
    key = "-----BEGIN KEY-----\nc2VjcmV0IG9uZQ\nc2VjcmV0IHR3bw\n-----END KEY-----"
    (tmp_path / "key").write_text(key)
    made, lines = worlds.estate(), list[str]()
    assert carried_out(made, worlds.book(made, ECHO % (0, "file", tmp_path / "key")), lines) is None
    for line in key.splitlines():
        silent(line, everything(made, lines, None))


def test_a_secret_that_cannot_be_read_names_its_place_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CANARY", raising=False)
    made, lines = worlds.estate(), list[str]()
    error = carried_out(made, worlds.book(made, ECHO % (0, "env", "CANARY")), lines)
    assert isinstance(error, Failed)
    assert "CANARY is not set" in error.what


def writes(error: Callable[[str], Exception]) -> Harm:
    def harm(made: Estate, canary: str) -> None:
        def fail(_: Any) -> None:
            raise error(canary)

        worlds.routers(made)["dns"].before_write = fail

    return harm


def unsettled(made: Estate, canary: str) -> None:
    made.routers["dns"].settled = lambda *_: unknown(f"the key {canary} is not known")  # type: ignore[method-assign]


def probed(made: Estate, canary: str) -> None:
    for region in ("east", "west"):
        worlds.see(made, "web", region, failed(f"401 for {canary}"))


def probes_break(made: Estate, canary: str) -> None:
    def fail() -> Any:
        raise RuntimeError(f"no luck with {canary}")

    for probe in made.probes.values():
        probe.probe = fail  # type: ignore[method-assign]


def routes_unseen(made: Estate, canary: str) -> None:
    made.routers["dns"].read = lambda routes: dict.fromkeys(  # type: ignore[method-assign]
        routes, Unknown(f"the key {canary} was not accepted")
    )


def reads_break(made: Estate, canary: str) -> None:
    def fail(_: Any) -> Any:
        raise RuntimeError(f"no luck with {canary}")

    made.routers["dns"].read = fail  # type: ignore[method-assign]


def members_unseen(made: Estate, canary: str) -> None:
    made.databases["orders"].read = lambda: {  # type: ignore[method-assign]
        region: Member(Role.UNKNOWN, detail=f"password {canary} was not accepted") for region in ("east", "west")
    }


def falls_behind(made: Estate, canary: str) -> None:
    made.databases["orders"].caught_up = lambda *_: failed(f"dsn {canary}")  # type: ignore[method-assign]


def database_breaks(made: Estate, canary: str) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError(f"postgres://user:{canary}@host")

    worlds.databases(made)["orders"].before_write = fail


HARMS: dict[str, Harm] = {
    "a write fails": writes(lambda canary: Failed(f"key {canary}", where=f"at {canary}", next=f"look at {canary}")),
    "a write breaks": writes(lambda canary: ValueError(f"key {canary}")),
    "a write is lost": writes(lambda canary: Indeterminate(f"key {canary}", next=f"look at {canary}")),
    "a write conflicts": writes(lambda canary: Conflict(f"route {canary}", canary, canary)),
    "never settles": unsettled,
    "probes say it": probed,
    "probes break with it": probes_break,
    "routes cannot be seen": routes_unseen,
    "reading breaks with it": reads_break,
    "members cannot be seen": members_unseen,
    "catching up says it": falls_behind,
    "a promotion breaks with it": database_breaks,
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=list(HARMS))
def test_a_provider_that_says_its_secret(harm: Harm, canary: str) -> None:
    made, lines = worlds.estate(), list[str]()
    harm(made, canary)
    runbook = worlds.book(made, "evacuate-region", region="east")
    error = carried_out(made, runbook, lines)
    assert error is not None
    silent(canary, everything(made, lines, error, worlds.plan(made, runbook)))


def test_a_provider_that_says_its_secret_while_a_write_is_read_back(canary: str) -> None:
    made, lines = worlds.estate(), list[str]()
    router = worlds.routers(made)["dns"]

    def lose(_: Any) -> None:
        routes_unseen(made, canary)
        raise Indeterminate("lost")

    router.after_write = lose
    assert isinstance(carried_out(made, worlds.book(made, "drain", region="east"), lines), Indeterminate)
    with pytest.raises(Indeterminate) as found:
        worlds.take_up(made, hands=heard(lines))
    silent(canary, everything(made, lines, found.value))


def test_a_runbook_that_says_a_secret_to_people(canary: str) -> None:
    made, lines = worlds.estate(), list[str]()
    text = f"runbook: r\nsteps:\n- approve: {json.dumps('use ' + canary)}\n"
    error = carried_out(made, worlds.book(made, text), lines)
    assert isinstance(error, Interrupted)
    assert canary not in str(error)
    assert worlds.resume(made, hands=Hands(approve=lambda *_: True)).status == "done"


@pytest.mark.parametrize("word", ["east", "orders", "done", "drain", "intent", "1700000", "true", "null", "memory"])
def test_a_secret_that_looks_like_a_name_does_not_break_the_record(word: str) -> None:
    """Nobody should have such a password, and somebody has; the run must be resumable all the same."""
    made = worlds.estate()
    text = "runbook: r\nsteps:\n- {id: out, drain: {region: east}}\n- approve: go on\n- promote: {to: west}\n"
    secret.remember(word)
    with pytest.raises(Interrupted):
        worlds.run(made, worlds.book(made, text))
    assert worlds.resume(made, hands=Hands(approve=lambda *_: True)).status == "done"
    assert worlds.world(made).primaries("orders") == ("west",)
    assert len(read_record(made, runs(made)[-1]).applied) == 4


def test_what_was_struck_out_is_what_the_hash_is_of(canary: str) -> None:
    made, lines = worlds.estate(), list[str]()
    worlds.see(made, "web", "east", passed(canary))
    worlds.see(made, "web", "west", passed(canary))
    assert carried_out(made, worlds.book(made, "evacuate-region", region="east"), lines) is None
    assert "[secret]" in "".join(made.store.read(f"run/{runs(made)[-1]}"))
    assert read_record(made, runs(made)[-1]).status == "done"
