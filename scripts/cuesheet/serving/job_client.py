"""Have a script run by the run's job server; stand in for it as a process until it has ended.

    python -I -S job_client.py SOCKET PYTHON SCRIPT [ARGUMENT ...]

Snakemake starts this in place of `PYTHON SCRIPT` (see `job_server`). The server runs the
script with this process's arguments, environment, folder, stdin, stdout and stderr; signals are
passed on, and this process ends the way the script did. Where no server listens, or the request
does not go through, PYTHON runs the script here.

The built-in modules alone, for this is started once a job: 12 ms, where `import socket` takes 12
more.
"""

import _signal
import _socket
import posix
import sys

_PASSED_ON = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)
_SCM_RIGHTS = 1


def main(arguments):
    """The exit status of the script; does not return where PYTHON takes this process's place."""
    path, command = arguments[0], arguments[1:]
    parts = [posix.getcwdb(), b"%d" % len(command[1:]), *(word.encode() for word in command[1:])]
    parts += [name + b"=" + value for name, value in posix.environ.items()]
    request = b"\0".join(parts)
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        server.connect(path)
        files = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
        about = [(_socket.SOL_SOCKET, _SCM_RIGHTS, files)]
        server.sendmsg([len(request).to_bytes(4, "big")], about)
        server.sendall(request)
    except OSError:
        posix.execv(command[0], command)
    for number in _PASSED_ON:
        _signal.signal(number, lambda number, _: server.sendall(bytes([number])))
    answer = b""
    while len(answer) < 4:
        received = server.recv(4 - len(answer))
        if not received:
            posix.write(2, b"The run's job server ended while this job ran; see its log.\n")
            return 1
        answer += received
    return _end_like(int.from_bytes(answer, "big", signed=True))


def _end_like(code):
    """Exit as the script did: with its status, or by its signal (`code` below 0)."""
    if code >= 0:
        return code
    if -code not in (_signal.SIGKILL, _signal.SIGSTOP):
        _signal.signal(-code, _signal.SIG_DFL)
    posix.kill(posix.getpid(), -code)
    return 128 - code


if __name__ == "__main__":
    posix._exit(main(sys.argv[1:]))
