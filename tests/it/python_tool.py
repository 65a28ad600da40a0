"""The other program that shares the registry file, reduced to how it reads and writes it.

Usage: python_tool.py FILE PREFIX COUNT: gives COUNT projects below PREFIX a port each, and prints what it gave.
"""

import fcntl
import json
import os
import sys


def read(path):
    with open(path) as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_SH)
        return json.load(file)


def write(path, registry):
    with open(path, "w") as file:  # empties it before it is locked
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        json.dump(registry, file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def allocate(path, project):
    registry = read(path)
    mappings = registry["mappings"]
    if project in mappings:
        return mappings[project]
    start, end = registry["port_range"]["start"], registry["port_range"]["end"]
    port = registry["next_available"]
    while port in mappings.values():
        port = port + 1 if port < end else start
    mappings[project] = port
    registry["next_available"] = port + 1 if port < end else start
    write(path, registry)
    return port


file, prefix, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
for number in range(count):
    print(allocate(file, f"{prefix}{number}"), flush=True)
