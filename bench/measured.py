"""Runs a command and writes what it took, as JSON, to a file.

    python measured.py FILE TIME_LIMIT COMMAND...

A program of its own, and a small one: Linux counts the peak memory of the process
that starts a command as the command's, so a process that holds arrays can't measure.
"""

import json
import os
import signal
import sys
import time


def main():
    path, limit, command = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.execvp(command[0], command)
    late = []

    def end(*_):
        late.append(True)
        os.kill(child, signal.SIGKILL)

    if limit > 0:
        signal.signal(signal.SIGALRM, end)
        signal.setitimer(signal.ITIMER_REAL, limit)
    _, status, used = os.wait4(child, 0)
    taken = {
        "seconds": time.monotonic() - started,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_mib": used.ru_maxrss / 1024,
        "code": os.waitstatus_to_exitcode(status),
        "timed_out": bool(late),
    }
    with open(path, "w", encoding="utf-8") as file:
        json.dump(taken, file)


if __name__ == "__main__":
    main()
