"""Ask for three capabilities without knowing where they are. The README has the commands that come first."""

import argparse

from anyserve import Client

parser = argparse.ArgumentParser(description=(__doc__ or "").partition(". ")[0])
parser.add_argument("--api-server", default="http://localhost:8080")
API_SERVER: str = parser.parse_args().api_server


def main() -> None:
    """Each client finds the replica that serves its capability, and then talks to that replica alone."""
    for kind, sign in (("multiply", "*"), ("divide", "/"), ("power", "**")):
        with Client(api_server=API_SERVER, capability={"type": kind}) as client:
            result = client.infer(kind, {"a": [8.0], "b": [2.0]}, timeout_s=30)
            print(f"8 {sign} 2 = {result['result'][0]:g}")


if __name__ == "__main__":
    main()
