"""Reads files in parallel and checks them: checksum-reader.py MOUNTPOINT THREADS < {"path": "sha256", ...} > report.

A process of its own, because a read that hangs must not hold up the test. Reports files whose bytes were wrong, errors, and the longest read in seconds.
"""
import hashlib, json, os, random, sys, threading, time

mountpoint, threads = sys.argv[1], int(sys.argv[2])
wanted = json.load(sys.stdin)
report = {"wrong": [], "errors": [], "right": 0, "longest": 0.0}
lock = threading.Lock()

def check(path, digest):
    started, longest, sha = 0.0, 0.0, hashlib.sha256()
    try:
        fd = os.open(mountpoint + path, os.O_RDONLY)
        try:
            while True:
                started = time.monotonic()
                part = os.read(fd, 131072)
                longest = max(longest, time.monotonic() - started)
                if not part:
                    break
                sha.update(part)
        finally:
            os.close(fd)
        failure = None
    except OSError as error:
        longest = max(longest, time.monotonic() - started)
        failure = [path, os.strerror(error.errno)]
    with lock:
        report["longest"] = max(report["longest"], longest)
        if failure:
            report["errors"].append(failure)
        elif sha.hexdigest() != digest:
            report["wrong"].append(path)
        else:
            report["right"] += 1

def work(seed):
    paths = list(wanted.items())
    random.Random(seed).shuffle(paths)
    for path, digest in paths:
        check(path, digest)

workers = [threading.Thread(target=work, args=(seed,)) for seed in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
json.dump(report, sys.stdout)
