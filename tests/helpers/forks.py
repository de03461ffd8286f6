"""A process that has everything imported, and starts scripts by forking, which spares each of them the imports.

A request on the socket has what a run begins with, and where its output and errors go. Beside each run there is a
process that waits for it, and tells the run's id and then its exit code. The run is in a session of its own, and begins
and ends as the script does that the interpreter was started with. So do the workers of a sweep under joblib, which are
forked before the run begins, and wait until it would start an interpreter.
"""

import contextlib
import fcntl
import gc
import importlib
import json
import os
import resource
import runpy
import signal
import socket
import sys
from pathlib import Path

from joblib.externals.loky.backend import fork_exec

ROOT = Path(__file__).resolve().parents[2]
ABOVE_ALL = 500  # no file has as high a number


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


def fork_workers(count):
    """Forks processes that wait to be workers, and has joblib use them; in such a process, its arguments in the end."""
    waiting, start = [], fork_exec.fork_exec

    def hand_over(command, files, env=None):
        if not waiting:
            return start(command, files, env)
        worker, ours = waiting.pop()
        about = {"arguments": command[2:], "files": [*map(int, files)], "environment": {**os.environ, **(env or {})}}
        socket.send_fds(ours, [json.dumps(about).encode()], about["files"])
        ours.close()
        return worker

    for _ in range(count):
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if worker := os.fork():
            its.close()
            waiting.append((worker, ours))
            continue
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for _, other in [*waiting, (0, ours)]:
            other.close()
        content, opened, _, _ = socket.recv_fds(its, 2**17, 20)
        if not content:  # the run has ended
            os._exit(0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        about = json.loads(content)
        kept = [fcntl.fcntl(number, fcntl.F_DUPFD, ABOVE_ALL) for number in opened]
        its.detach()
        os.closerange(3, ABOVE_ALL)
        for number, copy in zip(about["files"], kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        os.environ.clear()
        os.environ.update(about["environment"])
        return about["arguments"]
    fork_exec.fork_exec = hand_over
    return None


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    for name in ("hardmax.harness.app", "hardmax.tasks", "torch._dynamo"):  # the last is for the steps of an optimizer
        importlib.import_module(name)
    gc.freeze()
    begun = wait_for_request(socket.socket(fileno=int(sys.argv[1])))
    if begun:
        os.chdir(begun["where"])
        os.environ.clear()
        os.environ.update(begun["environment"])
        sys.argv = [begun["script"], *begun["arguments"]]
        sys.path[0] = os.path.dirname(begun["script"])
        if begun["most"]:
            sys.dont_write_bytecode = True  # Python would leave compiled files cut short, for all that come later
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
            resource.setrlimit(resource.RLIMIT_FSIZE, (begun["most"], begun["most"]))
        worker = fork_workers(6) if "hydra/launcher=joblib" in begun["arguments"] else None
        if worker:
            sys.argv = worker
            runpy.run_module(worker[0], run_name="__main__")
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
