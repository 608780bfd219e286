"""A process that appends to a stream until it is done or killed, for the contract of stores.

Reads from stdin one JSON object: `provider` as `module:Class`, its `config`, `stream`, `name` and `count`.
Appends `name` at 1, 2, … `count`, and prints a line for each: the number, and 1 where the append won it, else 0.
"""

import importlib
import json
import sys


def main() -> None:
    order = json.load(sys.stdin)
    module, _, name = order["provider"].partition(":")
    provider = getattr(importlib.import_module(module), name)
    store = provider(provider.Config.model_validate(order["config"]))
    for seq in range(1, order["count"] + 1):
        won = store.append(order["stream"], seq, order["name"])
        sys.stdout.write(f"{seq} {won:d}\n")
        sys.stdout.flush()
    store.close()


if __name__ == "__main__":
    main()
