"""Child processes that need not import torch first: they are forked from a process that has.

A hundred tests run `python -m derain_cli` or a script as a real process, and most of the time of
each was spent on imports. `Child` and `run` are `subprocess.Popen` and `subprocess.run`. Where the
command is this Python with `-m` or `-c`, they ask a server, started once per test process, to fork:
the child has its own arguments, folder, environment and streams, runs the module as `__main__`, and
is a child of the caller, which signals it and waits for it as usual.

Whatever a fork could not do as a new process would (closed streams, Python's own options and
environment, limits set before the start), and any other platform, gets a new process.
"""

import atexit
import ctypes
import gc
import json
import os
import pkgutil
import random
import runpy
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

# Read once, when Python or a library starts: where a child's differ, it is a new process.
READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "OMP_", "MKL_", "KMP_", "MALLOC_", "HF_")
PR_SET_CHILD_SUBREAPER = 36
MOST_BYTES = 1 << 20


class Child(subprocess.Popen[Any]):
    """`subprocess.Popen`, by a fork where that makes no difference."""

    def _execute_child(self, args: Any, *rest: Any) -> None:
        names = [
            "executable",
            "preexec_fn",
            "close_fds",
            "pass_fds",
            "cwd",
            "env",
            "startupinfo",
            "creationflags",
            "shell",
            "p2cread",
            "p2cwrite",
            "c2pread",
            "c2pwrite",
            "errread",
            "errwrite",
            "restore_signals",
            "gid",
            "gids",
            "uid",
            "umask",
            "start_new_session",
            "process_group",
        ]
        given = dict(zip(names, rest, strict=True))
        if not _may_fork(args, given):
            super()._execute_child(args, *rest)  # type: ignore[misc]
            return
        environment = dict(os.environ if given["env"] is None else given["env"])
        order = {
            "words": [os.fsdecode(word) for word in args[1:]],
            "folder": os.fsdecode(given["cwd"] or Path.cwd()),
            "environment": {os.fsdecode(k): os.fsdecode(v) for k, v in environment.items()},
            "session": given["start_new_session"],
        }
        ends = [given["p2cread"], given["c2pwrite"], given["errwrite"]]
        self.pid = _ask(order, [at if end == -1 else end for at, end in enumerate(ends)])
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(given[name] for name in pipes))  # type: ignore[attr-defined]


def run(
    args: Sequence[Any], *, capture_output: bool = False, check: bool = False, **settings: Any
) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run` of a `Child`."""
    timeout, text = settings.pop("timeout", None), settings.pop("input", None)
    if capture_output:
        settings |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if text is not None:
        settings["stdin"] = subprocess.PIPE
    with Child(args, **settings) as child:
        try:
            out, errors = child.communicate(text, timeout=timeout)
        except BaseException:
            child.kill()
            raise
    done = subprocess.CompletedProcess(args, child.returncode, out, errors)
    if check:
        done.check_returncode()
    return done


def _may_fork(args: Any, given: Mapping[str, Any]) -> bool:
    plain = ("executable", "preexec_fn", "pass_fds", "shell", "gid", "gids", "uid")
    return (
        sys.platform == "linux"
        and not isinstance(args, str)
        and len(args) > 2
        and args[0] == sys.executable
        and args[1] in ("-m", "-c")
        and not any(given[name] for name in plain)
        and given["umask"] == given["process_group"] == -1
        and _read_at_start(given["env"]) == _read_at_start(None)
    )


def _read_at_start(environment: Mapping[Any, Any] | None) -> dict[str, str]:
    given = os.environ if environment is None else environment
    names = {os.fsdecode(name): os.fsdecode(value) for name, value in given.items()}
    return {name: value for name, value in names.items() if name.startswith(READ_AT_START)}


@cache
def _server() -> socket.socket:
    """The server of this process; orphans of it become children of this process."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.children", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        cwd=Path(__file__).parents[1],
    )
    theirs.close()

    def stop() -> None:
        ours.close()
        process.wait()

    atexit.register(stop)
    return ours


def _ask(order: Mapping[str, Any], streams: Sequence[int]) -> int:
    server = _server()
    socket.send_fds(server, [json.dumps(order).encode("utf-8", "surrogateescape")], streams)
    answer = server.recv(64)
    if not answer:
        raise OSError("the server of child processes has ended")
    return int(answer)


def _serve(orders: socket.socket) -> None:
    """Fork a child for each order; returns in the child alone, once it is set up."""
    import derain_cli

    for module in pkgutil.walk_packages(derain_cli.__path__, "derain_cli."):
        if not module.name.endswith("__main__"):
            try:
                import_module(module.name)
            except ImportError:  # of an extra that is not installed
                continue
    gc.freeze()  # a collection in a child need not copy what they all share
    while True:
        message, streams, _, _ = socket.recv_fds(orders, MOST_BYTES, 3)
        if not message:
            os._exit(0)
        reader, writer = os.pipe()
        between = os.fork()
        if between == 0:
            # The child's parent ends at once: the child becomes one of whoever sent the order.
            if os.fork() != 0:
                os._exit(0)
            orders.close()
            os.close(reader)
            _become(json.loads(message.decode("utf-8", "surrogateescape")), streams, writer)
            return
        os.close(writer)
        os.waitpid(between, 0)
        for stream in streams:
            os.close(stream)
        orders.send(os.read(reader, 64) or b"-1")
        os.close(reader)


def _become(order: Mapping[str, Any], streams: Sequence[int], writer: int) -> None:
    for at, stream in enumerate(streams):
        os.dup2(stream, at)
        os.close(stream)
    if order["session"]:
        os.setsid()
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    os.write(writer, str(os.getpid()).encode())
    os.close(writer)
    random.seed()
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        old = getattr(sys, name)
        at = ("stdin", "stdout", "stderr").index(name)
        new = open(at, mode, encoding=old.encoding, errors=old.errors, closefd=False)  # noqa: SIM115
        if name == "stderr" or new.isatty():
            new.reconfigure(line_buffering=True)
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    sys.argv = order["words"]


def _run_main(kind: str, what: str, words: Sequence[str]) -> None:
    sys.argv = [kind, *words]
    sys.path[0] = "" if kind == "-c" else str(Path.cwd())
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    exec(compile(what, "<string>", "exec"), vars(main))


def _end(error: BaseException | None) -> None:
    """End as Python does, less its taking apart of every module, which takes as long as imports."""
    code: object = 0
    if isinstance(error, SystemExit):
        code = error.code
    elif error is not None:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are no daemons
    atexit._run_exitfuncs()
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # Python's own code for a reader that has gone
            code = code or 120
    os._exit(code & 0xFF)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _serve(socket.socket(fileno=int(sys.argv[1])))
    ended: BaseException | None = None
    try:
        _run_main(sys.argv[0], sys.argv[1], sys.argv[2:])
    except BaseException as error:  # noqa: BLE001 (whatever ends a Python program)
        ended = error
    _end(ended)
