"""An engine in a process of its own that is killed in the middle of a call."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def killed_in_a_call(script: str, *arguments: object, seconds: float) -> tuple[bytes, "subprocess.Popen[bytes]"]:
    """Run `script`, which says one line when it is ready and waits for another before it calls; SIGKILL it so many
    seconds after that. What it said, and the process, which has ended.
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    argv = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as engine:
        assert engine.stdin is not None
        assert engine.stdout is not None
        said = engine.stdout.readline()
        engine.stdin.write(b"\n")
        engine.stdin.flush()
        time.sleep(seconds)
        engine.send_signal(signal.SIGKILL)
    return said, engine
