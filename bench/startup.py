"""How long a person waits for the first word."""

from pathlib import Path

from bench.peers import Row, ours, peer, side_by_side

_EXAMPLE = Path(__file__).parent.parent / "examples" / "first-look"


def rows() -> list[Row]:
    """`failover --help` and `failover plan` beside the version commands of the peers, in milliseconds."""
    commands = {
        "failover --help": [ours(), "--help"],
        "failover plan (example)": [ours(), "plan", "evacuate-region", "-i", "region=east"],
    }
    found = []
    for what, argv in commands.items():
        for program in ("chaos", "ansible-playbook"):
            mine, other = side_by_side(argv, [peer(program), "--version"], cwd=_EXAMPLE)
            found.append(Row(what, 1000 * mine, 1000 * other, "ms", f"{program} --version"))
    return found
