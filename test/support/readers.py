# Readers under load: threads that read, list and stat a mounted tree for ever and compare everything with a copy of it. Page cache and directory cache
# are dropped before each operation, so every one of them asks the daemon.
#   readers.py MOUNT COPY THREADS STATE   STATE: a file of one byte a thread: 0 idle, 1 in a read, 2 in a listing, 3 in a lookup; and one more a thread, which counts its operations
# Prints "wrong ..." for every error and difference, "slow START END KIND" (monotonic nanoseconds) for every operation of 5 ms and more; "end OPERATIONS" when stdin ends.
import mmap, os, random, sys, threading, time

mount, copy, count, state_path = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
SLOW = 5_000_000
files, directories = [], []
for place, names, leaves in os.walk(copy):
    relative = os.path.relpath(place, copy)
    directories.append((relative, sorted(names + leaves)))
    files += [os.path.normpath(os.path.join(relative, leaf)) for leaf in leaves]
with open(state_path, 'wb') as file:
    file.write(bytes(2 * count))
state_file = open(state_path, 'r+b')
state = mmap.mmap(state_file.fileno(), 2 * count)
lock, ending, operations = threading.Lock(), threading.Event(), [0] * count


def say(text):
    with lock:
        sys.stdout.write(text + '\n')
        sys.stdout.flush()


def drop(fd):
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


class Timed:
    def __init__(self, thread, kind):
        self.thread, self.kind = thread, kind

    def __enter__(self):
        self.start = time.monotonic_ns()
        state[self.thread] = self.kind

    def __exit__(self, *_):
        state[self.thread] = 0
        end = time.monotonic_ns()
        if end - self.start >= SLOW:
            say('slow %d %d %d' % (self.start, end, self.kind))
        operations[self.thread] += 1
        state[count + self.thread] = operations[self.thread] & 255


def read(thread, rng, held):
    name, fd, expected = rng.choice(held)
    size = os.fstat(expected).st_size
    at = rng.randrange(max(1, size))
    length = min(rng.choice([1, 4096, 100_000, 1 << 20]), size - at)
    want = os.pread(expected, length, at)
    drop(fd)
    with Timed(thread, 1):
        got = os.pread(fd, length, at)
    if got != want:
        say('wrong bytes of %s at %d: %d of %d' % (name, at, len(got), length))


def listing(thread, rng, held):
    name, want = rng.choice(directories)
    fd = os.open(os.path.join(mount, name), os.O_RDONLY | os.O_DIRECTORY)
    try:
        drop(fd)
        with Timed(thread, 2):
            got = sorted(os.listdir(fd))
    finally:
        os.close(fd)
    if got != want:
        say('wrong listing of %s: %d names of %d' % (name, len(got), len(want)))


# a name that does not exist is never cached for long enough to matter, one that exists once: so both
def lookup(thread, rng, held):
    name = rng.choice(files)
    with Timed(thread, 3):
        size = os.lstat(os.path.join(mount, name)).st_size
        missing = os.path.lexists(os.path.join(mount, '%s-%d' % (name, rng.getrandbits(40))))
    if size != os.lstat(os.path.join(copy, name)).st_size or missing:
        say('wrong attributes of %s' % name)


def open_some(rng):
    return [(name, os.open(os.path.join(mount, name), os.O_RDONLY), os.open(os.path.join(copy, name), os.O_RDONLY)) for name in rng.sample(files, min(20, len(files)))]


def run(thread, rng, held):
    while not ending.is_set():
        action = listing if thread < 2 else lookup if rng.random() < 0.1 else read
        try:
            action(thread, rng, held)
        except Exception as error:
            say('wrong: %s %s' % (action.__name__, error))
            time.sleep(0.01)


generators = [random.Random(i) for i in range(count)]
threads = [threading.Thread(target=run, args=(i, rng, open_some(rng))) for i, rng in enumerate(generators)]
for thread in threads:
    thread.start()
say('reading %d files' % len(files))
sys.stdin.read()
ending.set()
for thread in threads:
    thread.join()
say('end %d' % sum(operations))
