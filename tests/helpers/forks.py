"""A process that has everything imported, and starts scripts by forking, which spares each of them the imports.

A request on the socket has what a run begins with, and where its output and errors go. Beside each run there is a
process that waits for it, and tells the run's id and then its exit code. The run is in a session of its own, and begins
and ends as the script does that the interpreter was started with.
"""

import contextlib
import importlib
import json
import os
import resource
import runpy
import socket
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def wait_for_request(requests):
    """Returns what a run begins with, in the run's process; None in this one, when nobody asks any more."""
    while True:
        content, opened, _, _ = socket.recv_fds(requests, 2**17, 3)
        with contextlib.suppress(ChildProcessError):  # else what has ended stays on as a zombie
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not content:
            return None
        if not os.fork():
            (*outputs, told) = opened
            if run := os.fork():
                for output in outputs:
                    os.close(output)  # else their reader would wait for this process as well
                os.write(told, f"{run}\n".encode())
                code = os.waitstatus_to_exitcode(os.waitpid(run, 0)[1])
                os.write(told, f"{code}\n".encode())
                os._exit(0)
            os.setsid()
            for number, output in enumerate(outputs, 1):
                os.dup2(output, number)
            for number in (*opened, requests.detach()):
                os.close(number)
            return json.loads(content)
        for number in opened:
            os.close(number)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    for name in ("hardmax.harness.app", "hardmax.tasks", "torch._dynamo"):  # the last is for the steps of an optimizer
        importlib.import_module(name)
    begun = wait_for_request(socket.socket(fileno=int(sys.argv[1])))
    if begun:
        os.chdir(begun["where"])
        os.environ.clear()
        os.environ.update(begun["environment"])
        sys.argv = [begun["script"], *begun["arguments"]]
        sys.path[0] = os.path.dirname(begun["script"])
        if begun["most"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (begun["most"], begun["most"]))
        runpy.run_path(sys.argv[0], run_name="__main__")
