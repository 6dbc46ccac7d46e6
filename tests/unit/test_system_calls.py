"""What strace says is read right, threads that interrupt each other included."""

import signal
import subprocess
from pathlib import Path

from tests.support.system_calls import Call, let_go, read_trace, retried_sync

TRACE = """\
7  openat(AT_FDCWD</>, "/srv/a/models/verified", O_RDWR|O_TMPFILE, 0600) = 9</srv/a/models/verified/#12>(deleted)
7  fsync(9</srv/a/models/verified/#12>(deleted) <unfinished ...>
8  openat(AT_FDCWD</>, "/proc/self/fd/9", O_WRONLY) = 10</srv/a/models/incoming/data>
7  <... fsync resumed>)                    = -1 EIO (Input/output error) (INJECTED)
8  close(10</srv/a/models/incoming/data>) = 0
--- SIGCHLD {si_signo=SIGCHLD} ---
7  openat(AT_FDCWD</>, "/etc/hosts", O_RDONLY) = 3</etc/hosts>
7  unlink("/srv/a/models/verified/.partial/0123456789abcdef.json" <unfinished ...>) = ?
7  +++ killed by SIGKILL +++
"""


def read(directory: Path, text: str) -> list[Call]:
    trace = directory / "trace"
    trace.write_text(text)
    return read_trace(trace)


def test_calls_are_counted_by_name_in_each_thread(tmp_path: Path) -> None:
    calls = read(tmp_path, TRACE)
    assert [(call.thread, call.name, call.ordinal) for call in calls] == [
        (7, "openat", 1),
        (7, "fsync", 1),
        (8, "openat", 1),
        (8, "close", 1),
        (7, "openat", 2),
        (7, "unlink", 1),
    ]
    assert [call.is_injected for call in calls] == [False, True, False, False, False, False]
    assert [call.leads_to(Path("/srv/a/models")) for call in calls] == [True, True, True, True, False, True]
    assert [call.descriptor for call in calls[1:4]] == ["9", "AT_FDCWD", "10"]


def test_the_shape_of_a_call_is_the_same_in_another_store(tmp_path: Path) -> None:
    other = TRACE.replace("/srv/a", "/srv/b").replace("#12", "#345").replace("0123456789abcdef", "fedcba9876543210")
    assert [call.shape for call in read(tmp_path, other)] == [call.shape for call in read(tmp_path, TRACE)]
    assert read(tmp_path, TRACE)[-1].shape == "unlink(verified/.partial/#.json)"


def test_a_second_fsync_of_a_descriptor_whose_first_failed_is_found(tmp_path: Path) -> None:
    failed = "7  fsync(9</a>) = -1 EIO (Input/output error) (INJECTED)\n"
    closed, synced = "7  close(9</a>) = 0\n", "7  fsync(9</a>) = 0\n"
    assert retried_sync(read(tmp_path, synced + synced)) is None
    assert retried_sync(read(tmp_path, failed + closed + synced)) is None
    assert retried_sync(read(tmp_path, failed + synced)) is not None
    assert retried_sync(read(tmp_path, failed + closed.replace("= 0", "= -1 EIO (INJECTED)") + synced)) is not None


def test_a_strace_that_missed_that_it_is_to_end_is_told_again() -> None:
    misses_the_first = "trap 'trap - TERM' TERM; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(["sh", "-c", misses_the_first], stdout=subprocess.PIPE) as strace:
        assert strace.stdout is not None
        assert strace.stdout.readline() == b"ready\n"
        let_go(strace)
        assert strace.returncode == -signal.SIGTERM
