"""A worker process that leaves its socket to the test, which then says whatever it wants in its name.

The first one of a replica is an honest worker, so that there is somebody to harm, and so is everyone whom no test waits
for; so is the template. It is what `--python` names, through a script; what follows are the arguments of a Python
interpreter.
"""

import contextlib
import json
import os
import socket
import sys
from pathlib import Path


def main() -> None:
    """Be wild if a test waits, and honest if none does."""
    with contextlib.suppress(OSError):
        if "anyserve.worker.template" not in sys.argv and not is_first():
            be_wild(sys.argv)
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])


def is_first() -> bool:
    try:
        os.close(os.open(Path(os.environ["E2E_NOTES"]) / "honest", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def be_wild(arguments: list[str]) -> None:
    """Connect to the runtime, give the socket to the test, and live as long as it wants.

    Raises:
        OSError: no test waits.
    """
    control = socket.socket(socket.AF_UNIX)
    control.connect(os.environ["WILD"])
    runtime = socket.socket(socket.AF_UNIX)
    runtime.connect(arguments[arguments.index("--socket") + 1])
    worker = int(arguments[arguments.index("--worker-id") + 1])
    told = {"pid": os.getpid(), "worker": worker, "token": os.environ["ANYSERVE_WORKER_TOKEN"]}
    socket.send_fds(control, [json.dumps(told).encode()], [runtime.fileno()])
    runtime.close()
    with contextlib.suppress(OSError):
        control.recv(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
