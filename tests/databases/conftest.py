"""A real cluster for every test that asks for one."""

from collections.abc import Iterator

import pytest

from tests.databases.cluster import Cluster, cluster


@pytest.fixture
def servers() -> Iterator[Cluster]:
    """A primary in east and a replica in west, PostgreSQL 16."""
    with cluster(16) as made:
        yield made


@pytest.fixture(params=[16, 18], ids=["16", "18"])
def both(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The same on the oldest and on the newest PostgreSQL at hand."""
    with cluster(request.param) as made:
        yield made
