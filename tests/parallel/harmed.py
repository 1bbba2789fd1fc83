"""One process of a launch that dies or hangs in a pass that all compute; what each process of the launch ended with is left in a file.

    torchrun --nproc-per-node 2 harmed.py FOLDER dies|hangs WHICH -- VERB ...
Process 1 does so as it enters an operation whose name holds WHICH, once FOLDER/log.jsonl has three steps.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def main() -> int:
    folder, how, which, _, *command = sys.argv[1:]
    rank = os.environ["RANK"]
    child = os.fork()
    if child == 0:
        os._exit(live(Path(folder), how, which if rank == "1" else "", command))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, when one is gone: the child, in the same group, hears it too
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    Path(folder).with_suffix(f".ended-{rank}").write_text(f"{status} {time.time()}")
    return status if status >= 0 else 128 - status


def live(folder: Path, how: str, which: str, command: list[str]) -> int:
    from torch.utils._python_dispatch import TorchDispatchMode

    from videodit.cli.main import main as cli

    class Dying(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if which and which in function.name():
                log = folder / "log.jsonl"
                if log.is_file() and len(log.read_text().splitlines()) >= 3:
                    {"dies": lambda: os.kill(os.getpid(), signal.SIGKILL), "hangs": lambda: time.sleep(600)}[how]()
            return function(*args, **(kwargs or {}))

    with Dying():
        return cli(command)


if __name__ == "__main__":
    sys.exit(main())
