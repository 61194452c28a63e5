"""`seitpp store info STORE` and `seitpp store verify STORE`."""

import argparse
import json
import sys

from training.command import explain


def main(argv):
    """Say what a store holds, or check all of it; exit code 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="seitpp store", description="Look at a token store, or check it.")
    parser.add_argument("action", choices=["info", "verify"])
    parser.add_argument("store", help="the store's folder")
    arguments = parser.parse_args(argv)
    try:
        from tokens.store import TokenStore

        store = TokenStore(arguments.store)
        if arguments.action == "verify":
            store.verify()
            print(f"{arguments.store}: {len(store)} rows in {len(store.manifest['shards'])} shards, all as written")
        else:
            print(json.dumps({"rows": len(store), "row_bytes": store.row_bytes, **store.manifest}, indent=2))
    except Exception as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        sys.exit(1)
