"""A laboratory in its normal state for every test that asks for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.in_memory import Estate, forget
from tests.e2e.laboratory import Laboratory


@pytest.fixture(scope="session")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    made = Laboratory(tmp_path_factory.mktemp("e2e") / "lab")
    yield made
    made.close()


@pytest.fixture
def lab(laboratory: Laboratory, tmp_path: Path) -> Laboratory:
    scratch = tmp_path / "before"
    scratch.mkdir()
    laboratory.normal(scratch)
    return laboratory


@pytest.fixture
def estate(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Estate]:
    yield Estate(tmp_path, capsys, monkeypatch)
    forget()
