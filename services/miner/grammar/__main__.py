"""The nursery: `python -m services.miner.grammar <model descriptor> <socket descriptor> <parent pid>`, by the engine.

It loads the vocabulary once; for each socket that it is sent it forks a process that serves one grammar there, under
limits that the kernel keeps: processor seconds for each question, memory, no core file. The nursery itself never reads
what a client wrote. All of them end when the engine does.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import numpy as np

from services.miner.grammar.parsed import ParsedGrammar, Pieces, UnparsableError
from services.miner.grammar.schema import to_gbnf
from services.miner.grammar.wire import (
    ACCEPT,
    MAX_CONSTRAINT_BYTES,
    MAX_REASON_CHARACTERS,
    NO,
    PROPOSE,
    TOKEN,
    YES,
    Constraint,
)
from services.miner.llama_log import last_errors, take_log
from services.miner.model.vocabulary import Vocabulary
from shared.errors import EngineError, ExitCode
from shared.log import configure_logging

PR_SET_PDEATHSIG = 1
STANDARD_ERROR = 2
PARSE_SECONDS = 2.0  # of a processor; a schema of 29 KB took 0.13 s on a busy one
TOKEN_SECONDS = 0.5  # of a processor; all of 49k tokens took 12 to 44 ms, so 256k take at most about half of it
MEMORY_BYTES = 64 * 1024 * 1024  # beyond what the nursery has
MEMORY_BYTES_A_TOKEN = 1024  # of the vocabulary; a look at all tokens took 730


def main(arguments: list[str]) -> int:
    """Serve until the engine closes its end; return the exit code."""
    descriptor, control = int(arguments[0]), socket.socket(fileno=int(arguments[1]))
    _die_with_parent(int(arguments[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a grammar ended
    configure_logging("miner", "warning")
    take_log()
    try:
        vocabulary = Vocabulary(descriptor)
    except EngineError as error:
        return error.exit_code
    pieces, nursery = Pieces(vocabulary), os.getpid()
    while True:
        _message, descriptors, _flags, _address = socket.recv_fds(control, 1, 1)
        if not descriptors:
            return ExitCode.OK
        with socket.socket(fileno=descriptors[0]) as connection:
            try:
                child = os.fork()
            except OSError as error:
                connection.send(NO + f"no process can be started for the grammar: {error}".encode())
                continue
            if child == 0:
                control.close()
                _die_with_parent(nursery)
                _serve(connection, pieces)


def _serve(connection: socket.socket, pieces: Pieces) -> NoReturn:
    _limit_memory(pieces.size)
    try:
        with _seconds(PARSE_SECONDS):
            grammar = _parse(Constraint.unpacked(connection.recv(MAX_CONSTRAINT_BYTES + 1)), pieces)
    except (ValueError, MemoryError) as error:
        connection.send(
            NO + (str(error) or "it takes too much memory")[:MAX_REASON_CHARACTERS].encode(errors="replace")
        )
        os._exit(ExitCode.USAGE)
    connection.send(YES)
    while packet := connection.recv(TOKEN.size):
        operation, token = TOKEN.unpack(packet)
        with _seconds(TOKEN_SECONDS):
            _answer(connection, grammar, operation, token)
    os._exit(ExitCode.OK)


def _parse(constraint: Constraint, pieces: Pieces) -> ParsedGrammar:
    grammar = constraint.text if constraint.kind == "grammar" else to_gbnf(constraint.text)
    if "\0" in grammar:
        raise ValueError("the grammar cannot be parsed: it has a null character")
    said = os.memfd_create("grammar-errors")
    os.dup2(said, STANDARD_ERROR)  # the parser prints its reasons there and nowhere else
    try:
        return ParsedGrammar(grammar, pieces)
    except UnparsableError as error:
        raise ValueError(f"the grammar cannot be parsed: {_parser_reason(said)}") from error


def _parser_reason(said: int) -> str:
    lines = os.pread(said, MAX_CONSTRAINT_BYTES, 0).decode(errors="replace").splitlines()
    marker = "error parsing grammar: "
    found = [line.partition(marker)[2] for line in lines if marker in line]
    return found[0] if found else last_errors() or "no reason given"


def _answer(connection: socket.socket, grammar: ParsedGrammar, operation: bytes, token: int) -> None:
    if operation == ACCEPT:
        if not grammar.allows(token):
            os._exit(ExitCode.FAILURE)  # llama.cpp would abort
        grammar.accept(token)
    elif operation == PROPOSE and grammar.allows(token):
        connection.send(YES)
        grammar.accept(token)
    else:
        connection.send(NO + np.packbits(grammar.allowed()).tobytes())


@contextmanager
def _seconds(limit: float) -> Iterator[None]:
    """Let the kernel end this process when the block takes more of a processor; C code hears no exception."""
    signal.setitimer(signal.ITIMER_PROF, limit)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)


def _limit_memory(tokens: int) -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + MEMORY_BYTES + MEMORY_BYTES_A_TOKEN * tokens
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _die_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it went before the line above
        os._exit(ExitCode.FAILURE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
