"""Writes `docs/runbook-reference.md` from the models of the verbs and inputs. `python -m docs.reference`."""

from pathlib import Path

from failover.report.schema import runbook_reference

PAGE = Path(__file__).parent / "runbook-reference.md"

HEAD = """# Runbook reference

Generated from the models of the verbs by `python -m docs.reference`; [concepts.md](concepts.md) explains the words.

"""


def page() -> str:
    """The page as the models have it now."""
    return HEAD + runbook_reference()


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
