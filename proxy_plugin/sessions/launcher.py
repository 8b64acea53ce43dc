"""Runs a server that ends with the process that asked for it: `launcher.py PARENT_PID COMMAND…`

Run by path with `python -I -S`; uses the standard library alone. On Linux the kernel is asked to end this
process with its parent, then the server takes its place. Elsewhere it stays and watches the parent.
"""

import os
import signal
import sys
import time


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        import ctypes

        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() == parent:  # else the parent ended before the kernel was asked
            os.execv(command[0], command)
        return
    child = os.spawnv(os.P_NOWAIT, command[0], command)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if os.getppid() != parent:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
            return
        time.sleep(0.25)


if __name__ == "__main__":
    main()
