"""Groups of processes on one machine: one process imports everything once and forks the members of each group.

    python ranks.py MODULE FUNCTION FOLDER SIZE...
Each member calls FUNCTION(FOLDER, NUMBER), the number of its group, in a group of gloo's; what it returns is JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def run(module: Path, function: str, folder: Path, sizes: tuple[int, ...], timeout: int = 300) -> list[list[Any]]:
    """What each member of each group returns."""
    places = os.pathsep.join([str(HERE), str(module.parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": places}
    command = [sys.executable, str(HERE / "ranks.py"), module.stem, function, str(folder), *map(str, sizes)]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its children hold the pipe
        raise
    assert process.returncode == 0, said[-6000:]
    return [[json.loads((folder / f"{number}-{rank}.json").read_text()) for rank in range(size)] for number, size in enumerate(sizes)]


def member(function: Any, folder: Path, number: int, rank: int, size: int) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.FileStore(str(folder / f"store-{number}"), size), rank=rank, world_size=size)
    (folder / f"{number}-{rank}.json").write_text(json.dumps(function(folder, number)))
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    import torch
    import torch.distributed.fsdp
    import torch.distributed.tensor

    torch.set_num_threads(1)
    module, name, folder = importlib.import_module(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    for number, size in enumerate(map(int, sys.argv[4:])):
        children = []
        for rank in range(size):
            children.append(os.fork())
            if children[-1] == 0:
                try:
                    member(getattr(module, name), folder, number, rank, size)
                except BaseException:
                    traceback.print_exc()
                    sys.stderr.flush()
                    os._exit(1)
                os._exit(0)
        left = set(children)
        while left:
            child, status = os.wait()
            left.discard(child)
            if status:
                for other in left:
                    os.kill(other, 9)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
