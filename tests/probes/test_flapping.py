"""Health that comes and goes with every look moves nothing to and fro: each probe, on what it really looks at."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
from botocore.config import Config

from failover.errors import Failed
from failover.probes.prometheus import PrometheusProbe, PrometheusProbeConfig
from failover.registry import open_estate
from failover.testing import FakeClock
from failover.verdict import Outcome
from failover.world import CheckId, RouteChange
from failover.yaml import parse
from tests import worlds
from tests.consuls import ROOT, Agent, Two
from tests.probes.prometheus import Prometheus
from tests.probes.servers import free_port, http, serving
from tests.routers.aws import KEY, Moto, Proxy
from tests.routers.bind import ZONE, Pair
from tests.routers.route53_estate import sign_in
from tests.routers.specs import LOOPBACK, until

WEST = CheckId("web", "up", "west")
GOOD, BAD = "Success: HTTP Status Code: 200. OK", "Failure: Connection refused"
TOPOLOGY = """
topology: flapping
regions: [east, west]
services:
  web:
    routes: [{router: dns, weights: {east: 100, west: 100}}]
    checks: {up: %s}
routers: {dns: {memory: {}}}
drain: {stages: [75, 50, 25, 0], soak: 30s, every: 10s, hold: 60s, on_fail: %s}
store: {memory: {}}
"""


@dataclass
class Patient:
    """What a probe looks at, and how it is made ill and well. It is well at first."""

    check: dict[str, Any]
    turn: Callable[[bool], None]
    well: bool = True

    def flap(self) -> None:
        self.well = not self.well
        self.turn(self.well)


class Flapping(FakeClock):
    """From the first write on, whatever waits finds the patient in the other state afterwards."""

    def __init__(self, patient: Patient) -> None:
        super().__init__()
        self.patient = patient
        self.begun = False

    def sleep(self, seconds: float, stop: threading.Event | None = None) -> bool:
        if self.begun:
            self.patient.flap()
        return super().sleep(seconds, stop)


def by_http(stack: ExitStack, _: Path) -> Patient:
    well = [True]

    def answer(connection: Any, over: threading.Event) -> None:
        http("200 OK" if well[0] else "503 Service Unavailable")(connection, over)

    port = stack.enter_context(serving(answer))
    return Patient({"http": {"url": f"http://{LOOPBACK}:{port}/health"}}, lambda now: well.__setitem__(0, now))


def by_tcp(stack: ExitStack, _: Path) -> Patient:
    port, open_now = free_port(), ExitStack()
    stack.push(open_now)

    def turn(well: bool) -> None:
        open_now.close()
        if well:
            open_now.enter_context(socket.create_server((LOOPBACK, port)))

    turn(True)
    return Patient({"tcp": {"host": LOOPBACK, "port": port}}, turn)


def by_dns(stack: ExitStack, place: Path) -> Patient:
    pair = Pair(place)
    pair.primary.start()
    stack.callback(pair.primary.stop)
    name = f"web.{ZONE}"

    def turn(well: bool) -> None:
        pair.put(name, ["192.0.2.1"] if well else ["192.0.2.9"])

    turn(True)
    server = f"{LOOPBACK}:{pair.primary.port}"
    return Patient({"dns": {"server": server, "name": name, "expect": ["192.0.2.1"]}}, turn)


def by_prometheus(stack: ExitStack, place: Path) -> Patient:
    well = [True]

    def metrics(connection: Any, over: threading.Event) -> None:
        http(body=f"good {int(well[0])}\n".encode(), head="Content-Type: text/plain; version=0.0.4\r\n")(
            connection, over
        )

    target = stack.enter_context(serving(metrics))
    server = stack.enter_context(Prometheus(place, target))
    config = {"url": server.url, "query": "good", "min": 1}

    def scraped() -> float:
        try:
            return PrometheusProbe(PrometheusProbeConfig.model_validate(config), FakeClock()).value()
        except Failed:
            return -1

    def turn(now: bool) -> None:
        well[0] = now
        until(lambda: scraped() == int(now), 15, "a scrape")

    turn(True)
    return Patient({"prometheus": config}, turn)


def identity(stack: ExitStack, place: Path) -> dict[str, str]:
    credentials = sign_in(place, stack.enter_context(pytest.MonkeyPatch.context()))
    return {"profile": "failover", "credentials_file": str(credentials), "region": "eu-west-1"}


def by_route53(stack: ExitStack, place: Path) -> Patient:
    moto = Moto()
    stack.callback(moto.stop)
    proxy = Proxy(moto)
    stack.callback(proxy.stop)

    def turn(well: bool) -> None:
        proxy.observations["shop"] = [(GOOD if well else BAD, 10)] * 16

    turn(True)
    asked = {"health_check": "shop", "endpoint": proxy.endpoint, **identity(stack, place)}
    return Patient({"route53_health_check": asked}, turn)


def by_cloudwatch(stack: ExitStack, place: Path) -> Patient:
    moto = Moto()
    stack.callback(moto.stop)
    endpoint = f"http://{LOOPBACK}:{moto.port}"
    session = boto3.Session(aws_access_key_id=KEY, aws_secret_access_key=KEY, region_name="eu-west-1")
    api = session.client("cloudwatch", endpoint_url=endpoint, config=Config(proxies={}))
    stack.callback(api.close)
    how: Any = {"EvaluationPeriods": 1, "Threshold": 1, "ComparisonOperator": "GreaterThanThreshold"}
    api.put_metric_alarm(AlarmName="errors", Namespace="s", MetricName="e", Period=60, Statistic="Sum", **how)

    def turn(well: bool) -> None:
        api.set_alarm_state(AlarmName="errors", StateValue="OK" if well else "ALARM", StateReason="a test says so")

    turn(True)
    asked = {"alarm": "errors", "endpoint": endpoint, **identity(stack, place)}
    return Patient({"cloudwatch_alarm": asked}, turn)


def by_command(_: ExitStack, place: Path) -> Patient:
    flag = place / "well"

    def turn(well: bool) -> None:
        flag.touch() if well else flag.unlink()

    turn(True)
    return Patient({"command": {"argv": ["test", "-e", str(flag)]}}, turn)


def by_consul(stack: ExitStack, place: Path) -> Patient:
    agent = Agent(place / "agent", "east", "one", 9, bootstrap_expect=1)
    stack.callback(agent.stop)
    agent.start()
    Two.register(agent, "web", "web-1", "192.0.2.1", 1)
    stack.enter_context(pytest.MonkeyPatch.context()).setenv("CONSUL_TOKEN_OF_TESTS", ROOT)
    config = {"address": agent.url, "service": "web", "token": {"env": "CONSUL_TOKEN_OF_TESTS"}}

    def passing() -> bool:
        return len(agent.get("health/service/web", "passing=true") or ()) == 1

    def turn(well: bool) -> None:
        agent.put(f"agent/check/{'pass' if well else 'fail'}/up-web-1")
        until(lambda: passing() == well, 10, "the agent's word in the catalog")

    turn(True)
    return Patient({"consul": config}, turn)


PROBES = {
    "consul": by_consul,
    "http": by_http,
    "tcp": by_tcp,
    "dns": by_dns,
    "prometheus": by_prometheus,
    "route53_health_check": by_route53,
    "cloudwatch_alarm": by_cloudwatch,
    "command": by_command,
}


@pytest.fixture(params=PROBES, scope="module")
def patient(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    with ExitStack() as stack:
        yield PROBES[request.param](stack, tmp_path_factory.mktemp(request.param))


class Shop:
    """The estate whose region west is the patient, looked at by the real probe; east is always well."""

    def __init__(self, patient: Patient, on_fail: str = "pause", **samples: int) -> None:
        self.patient = patient
        self.clock = Flapping(patient)
        self.estate = worlds.estate(TOPOLOGY % (json.dumps({"memory": {}}), on_fail), self.clock)
        check = json.dumps({**patient.check, **samples})
        real = open_estate(parse(TOPOLOGY % (check, on_fail), "failover.yaml"), self.clock)
        cast(dict[CheckId, Any], self.estate.probes)[WEST] = real.probes[WEST]
        worlds.routers(self.estate)["dns"].after_write = lambda _: self._begin(now=True)

    def _begin(self, *, now: bool) -> None:
        self.clock.begun = now

    def drain(self) -> str:
        """Drain east as far as that goes; why it went no further."""
        planned = worlds.plan(self.estate, worlds.book(self.estate, "drain", region="east"))
        assert planned.refusal is None
        with pytest.raises(Failed) as stopped:
            worlds.begin(self.estate, planned).go(planned, {})
        return stopped.value.what

    def calm(self) -> None:
        """From now on it is well and stays so."""
        worlds.routers(self.estate)["dns"].after_write = None
        self._begin(now=False)
        if not self.patient.well:
            self.patient.flap()

    def easts(self) -> list[int]:
        """The weights of east that were written, one after another."""
        return [change.after.weights["east"] for change in worlds.log(self.estate) if isinstance(change, RouteChange)]


def test_one_look_sees_what_is_there(patient: Patient) -> None:
    probe = Shop(patient).estate.probes[WEST]
    assert probe.probe().outcome is Outcome.PASS
    patient.flap()
    assert probe.probe().outcome is Outcome.FAIL
    patient.flap()
    assert probe.probe().outcome is Outcome.PASS


def test_seen_to_fail_once_the_ramp_stays_where_it_is(patient: Patient) -> None:
    shop = Shop(patient)
    assert shop.drain().startswith("after drain east to 75 %: ")
    assert shop.easts() == [75]
    shop.calm()
    assert worlds.resume(shop.estate).status == "done"
    assert shop.easts() == [75, 50, 25, 0]


def test_one_step_back_and_no_second_try(patient: Patient) -> None:
    shop = Shop(patient, on_fail="step-back")
    shop.drain()
    assert shop.easts() == [75, 100]
    shop.calm()
    assert worlds.resume(shop.estate).status == "done"
    assert shop.easts() == [75, 100, 75, 50, 25, 0]


def test_to_and_fro_within_one_look_is_unknown_and_holds(patient: Patient) -> None:
    shop = Shop(patient, fall=2, rise=2)
    assert "it goes to and fro: 4 samples, 1 s apart" in shop.drain()
    assert shop.easts() == [75]
    shop.calm()
    assert worlds.resume(shop.estate).status == "done"
    assert shop.easts() == [75, 50, 25, 0]
