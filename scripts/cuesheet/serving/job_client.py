"""Run a script in the run's job server, and exit with the status of the script.

    python -I -S job_client.py SOCKET PYTHON SCRIPT [ARGUMENT ...]

Snakemake starts this instead of `PYTHON SCRIPT` (see `job_server`). The server gets the arguments,
environment, folder, stdin, stdout and stderr of this process; signals are passed on. If no server
answers, PYTHON runs the script here. Only built-in modules are used: 12 ms per job, while
`import socket` alone takes another 12 ms.
"""

import _signal
import _socket
import posix
import sys

_SCM_RIGHTS = 1


def main(arguments: list[str]) -> int:
    """Return the exit status of the script."""
    path, command = arguments[0], arguments[1:]
    parts = [posix.getcwdb(), b"%d" % len(command[1:]), *(word.encode() for word in command[1:])]
    parts += [name + b"=" + value for name, value in posix.environ.items()]
    request = b"\0".join(parts)
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        server.connect(path)
        files = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
        rights = [(_socket.SOL_SOCKET, _SCM_RIGHTS, files)]
        server.sendmsg([len(request).to_bytes(4, "big")], rights)
        server.sendall(request)
    except OSError:
        posix.execv(command[0], command)

    def pass_on(number: int, _frame: object) -> None:
        try:  # noqa: SIM105 - contextlib is not a built-in module
            server.sendall(bytes([number]))
        except OSError:  # the server has ended, and its jobs with it
            pass

    for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
        _signal.signal(number, pass_on)
    answer = b""
    while len(answer) < 4:
        try:
            received = server.recv(4 - len(answer))
        except OSError:  # the server was killed before it had read the request
            received = b""
        if not received:
            posix.write(2, b"The run's job server ended while this job ran; see its log.\n")
            return 1
        answer += received
    code = int.from_bytes(answer, "big", signed=True)
    if code < 0:  # the script was ended by a signal
        if code != -_signal.SIGKILL:
            _signal.signal(-code, _signal.SIG_DFL)
        posix.kill(posix.getpid(), -code)
    return code % 256


if __name__ == "__main__":
    posix._exit(main(sys.argv[1:]))
