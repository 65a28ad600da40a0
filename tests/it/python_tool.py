"""The other program that shares the registry file, reduced to how it reads and writes it.

Usage: python_tool.py FILE PREFIX COUNT: gives COUNT projects below PREFIX a port each, and prints what it gave.

Where it was held up between reading and writing it reads again, or prints `late` if it notices only after it has emptied the file.
"""

import fcntl
import json
import os
import sys
import time

WRITES_WITHIN = 0.005  # seconds: the time for which the store watches


def read(path):
    read_at = time.monotonic()  # before it is opened: it may be replaced before it is read
    with open(path) as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_SH)
        return json.load(file), read_at


def write(path, registry, read_at):
    with open(path, "r+") as file:
        if time.monotonic() - read_at > WRITES_WITHIN / 2:
            return False
        os.ftruncate(file.fileno(), 0)  # emptied before it is locked
        if time.monotonic() - read_at > WRITES_WITHIN:
            print("late", flush=True)
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        json.dump(registry, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
        return True


def allocate(path, project):
    registry, read_at = read(path)
    mappings = registry["mappings"]
    if project in mappings:
        return mappings[project]
    start, end = registry["port_range"]["start"], registry["port_range"]["end"]
    port = registry["next_available"]
    while port in mappings.values():
        port = port + 1 if port < end else start
    mappings[project] = port
    registry["next_available"] = port + 1 if port < end else start
    if not write(path, registry, read_at):
        return allocate(path, project)
    wait_until_recorded(path, project)
    return port


def wait_until_recorded(path, project):
    """The tool is started anew for each project: `ic` has then found a mapping in a file that it has replaced."""
    until = time.monotonic() + 60
    while project not in read(path)[0]["mappings"]:
        assert time.monotonic() < until, f"{project} is lost"
        time.sleep(0.001)


file, prefix, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
for number in range(count):
    print(allocate(file, f"{prefix}{number}"), flush=True)
