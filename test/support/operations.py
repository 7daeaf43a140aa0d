#!/usr/bin/env python3
"""operations.py A B SEED COUNT [NAME ...]: the same random operations in two trees, one after the other. Each result must be equal (errors by their
number), and so must both trees be at the end. With OPERATIONS_HELD=apart no file is unlinked that is open. Prints how often each operation succeeded, as JSON; a difference is printed and ends the run with status 1."""
import ctypes, errno, json, mmap, os, random, stat, sys

A, B, SEED, COUNT = os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
EXCLUDED = frozenset(sys.argv[5:])  # operations that are left out
rng = random.Random(SEED)
libc = ctypes.CDLL(None, use_errno=True)
NAMES = [b'a', b'b', b'c', b'd', b'long-' + b'n' * 200, b'\xff\xfe', b'with space', b'e']
NOREPLACE, EXCHANGE = 1, 2
APART = os.environ.get('OPERATIONS_HELD') == 'apart'


def renameat2(old, new, flags):
    if libc.renameat2(-100, old, -100, new, flags) != 0:
        raise OSError(ctypes.get_errno(), '')


def shown(path):
    """What a program sees of a file."""
    s = os.lstat(path)
    size = None if stat.S_ISDIR(s.st_mode) else s.st_size
    links = None if stat.S_ISDIR(s.st_mode) else s.st_nlink
    names = sorted(n for n in os.listxattr(path, follow_symlinks=False) if n.startswith('user.') or n.startswith('system.posix'))
    xattrs = [(n, os.getxattr(path, n, follow_symlinks=False)) for n in names]
    return (oct(s.st_mode), s.st_uid, s.st_gid, size, links, s.st_rdev if stat.S_ISCHR(s.st_mode) else 0, xattrs)


def opened(path, flags, mode=0o644):
    try:
        if stat.S_ISCHR(os.lstat(path).st_mode): raise OSError(errno.ENXIO, 'a mount without devices says so in another way')
    except FileNotFoundError:
        pass
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, mode)


def read(path, offset=0, size=1 << 20):
    fd = opened(path, os.O_RDONLY)
    try:
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)


def with_fd(path, flags, use, mode=0o644):
    fd = opened(path, flags, mode)
    try:
        return use(fd)
    finally:
        os.close(fd)


def mapped(fd, at, byte):
    size = os.fstat(fd).st_size
    if size == 0:
        return 0
    with mmap.mmap(fd, size) as view:
        view[at % size] = byte
        view.flush()
        return view[size // 2]


def sought(fd):
    if not stat.S_ISREG(os.fstat(fd).st_mode): return 'no file' # a directory's end is its file system's business
    return os.lseek(fd, 0, os.SEEK_END) # where holes are depends on what was written back when


# Files that stay open over many operations: [descriptor in A, in B].
held = []


def place():
    """Where something may be: mostly in a directory that is there, which then is one in both trees."""
    parts = []
    while len(parts) < 3 and rng.random() < 0.5:
        there = sorted(entry.name for entry in os.scandir(os.path.join(A, *parts)) if entry.is_dir(follow_symlinks=False)) if rng.random() < 0.9 else NAMES[:5]
        if not there: break
        parts.append(rng.choice(there))
        if not os.path.isdir(os.path.join(A, *parts)) or os.path.islink(os.path.join(A, *parts)): break
    if rng.random() < 0.5 and os.path.isdir(os.path.join(A, *parts)):
        there = sorted(name for name in os.listdir(os.path.join(A, *parts)) if not (APART and name.startswith(b'held-')))
        if there: return parts + [rng.choice(there)]
    return parts + [rng.choice(NAMES)]


def operation():
    """A name, and a function of a root that does it."""
    parts, others = place(), place()
    at = lambda root: os.path.join(root, *parts)
    to = lambda root: os.path.join(root, *others)
    data = rng.randbytes(rng.choice([0, 1, 100, 4096, 70000]))
    offset, length, mode = rng.choice([0, 3, 4096, 100000]), rng.choice([1, 500, 8192]), rng.choice([0o644, 0o600, 0o755, 0o4755, 0o2711, 0o1777, 0])
    number = rng.randrange(256)
    choices = {
        'create': lambda r: with_fd(at(r), os.O_CREAT | os.O_EXCL | os.O_RDWR, lambda fd: os.write(fd, data), mode | 0o200),
        'write': lambda r: with_fd(at(r), os.O_WRONLY, lambda fd: os.pwrite(fd, data, offset)),
        'append': lambda r: with_fd(at(r), os.O_WRONLY | os.O_APPEND | os.O_CREAT, lambda fd: os.write(fd, data[:5000])),
        'truncating': lambda r: with_fd(at(r), os.O_WRONLY | os.O_TRUNC, lambda fd: os.write(fd, data[:10])),
        'truncate': lambda r: os.truncate(at(r), offset),
        'read': lambda r: read(at(r), offset, length),
        'mkdir': lambda r: os.mkdir(at(r), mode | 0o700),
        'mkdir ': lambda r: os.mkdir(at(r)),
        'rmdir': lambda r: os.rmdir(at(r)),
        'unlink': lambda r: os.unlink(at(r)),
        'symlink': lambda r: os.symlink(others[-1], at(r)),
        'readlink': lambda r: os.readlink(at(r)),
        'link': lambda r: os.link(at(r), to(r), follow_symlinks=False),
        'rename': lambda r: os.rename(at(r), to(r)),
        'rename ': lambda r: os.rename(at(r), to(r)),
        'noreplace': lambda r: renameat2(at(r), to(r), NOREPLACE),
        'exchange': lambda r: renameat2(at(r), to(r), EXCHANGE),
        'chmod': lambda r: os.chmod(at(r), mode) if not os.path.islink(at(r)) else 'link',
        'chown': lambda r: os.chown(at(r), number, number + 1, follow_symlinks=False),
        'utime': lambda r: (os.utime(at(r), ns=(number * 10**9 + 5, number * 10**12 + 7), follow_symlinks=False), os.lstat(at(r)).st_mtime_ns, os.lstat(at(r)).st_atime_ns),
        'mknod': lambda r: os.mknod(at(r), rng_mode | 0o600, os.makedev(0, 0) if stat.S_ISCHR(rng_mode) else 0),
        'setxattr': lambda r: os.setxattr(at(r), 'user.' + chr(97 + number % 3), data[:100], rng_flags, follow_symlinks=False),
        'removexattr': lambda r: os.removexattr(at(r), 'user.' + chr(97 + number % 3), follow_symlinks=False),
        'fallocate': lambda r: with_fd(at(r), os.O_WRONLY, lambda fd: os.posix_fallocate(fd, offset, length)),
        'seek': lambda r: with_fd(at(r), os.O_RDONLY, sought),
        'copy': lambda r: with_fd(at(r), os.O_RDONLY, lambda f: with_fd(to(r), os.O_WRONLY | os.O_CREAT, lambda t: os.copy_file_range(f, t, length, 0, offset))),
        'mmap': lambda r: with_fd(at(r), os.O_RDWR, lambda fd: mapped(fd, offset, number)),
        'fsync': lambda r: with_fd(at(r), os.O_RDONLY, os.fsync),
        'list': lambda r: sorted(os.listdir(os.path.dirname(at(r)))),
        'stat': lambda r: shown(at(r)),
        'statvfs': lambda r: os.statvfs(r).f_namemax,
        'access': lambda r: os.access(at(r), os.R_OK | os.W_OK),
    }
    rng_mode = rng.choice([stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG, stat.S_IFCHR])
    rng_flags = rng.choice([0, 0, os.XATTR_CREATE, os.XATTR_REPLACE])
    name = rng.choice([name for name in choices if name.strip() not in EXCLUDED])
    return name.strip(), choices[name], b'/'.join(parts)


def attempt(use, root):
    try:
        return ('ok', use(root))
    except OSError as error:
        return ('error', errno.errorcode.get(error.errno, error.errno))


def hold():
    """Opens, uses or closes a file that stays open, also after it was unlinked or renamed."""
    if held and rng.random() < 0.8:
        pair = held[rng.randrange(len(held))]
        what, data, offset = rng.choice(['pwrite', 'pread', 'fstat', 'close', 'ftruncate', 'fchmod']), rng.randbytes(300), rng.choice([0, 50, 5000])
        results = []
        for fd in pair:
            def use(_):
                if what == 'pwrite': return os.pwrite(fd, data, offset)
                if what == 'pread': return os.pread(fd, 1000, offset)
                if what == 'fstat': return os.fstat(fd).st_size, os.fstat(fd).st_nlink, oct(os.fstat(fd).st_mode)
                if what == 'ftruncate': return os.ftruncate(fd, offset)
                if what == 'fchmod': return os.fchmod(fd, 0o640)
                return os.close(fd)
            results.append(attempt(use, b''))
        if what == 'close': held.remove(pair)
        return f'held {what}', results
    name = b'held-' + rng.choice([b'0', b'1', b'2']) if APART else rng.choice(NAMES)
    pair, results = [], []
    for root in (A, B):
        try:
            pair.append(opened(os.path.join(root, name), os.O_RDWR | os.O_CREAT))
            results.append(('ok', None))
        except OSError as error:
            results.append(('error', errno.errorcode.get(error.errno)))
    if len(pair) == 2 and len(held) < 10 and stat.S_ISREG(os.fstat(pair[0]).st_mode): held.append(pair)
    else:
        for fd in pair: os.close(fd)
    return 'hold', results


def tree(root):
    found = {}
    for directory, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(directory, name)
            seen = shown(path)
            mode = os.lstat(path).st_mode
            content = read(path, 0, 1 << 24) if stat.S_ISREG(mode) else os.readlink(path) if stat.S_ISLNK(mode) else None
            found[os.path.relpath(path, root)] = (seen, content)
    return found


def main():
    succeeded = {}
    for step in range(COUNT):
        if rng.random() < 0.15:
            name, results = hold()
            where = b''
        else:
            name, use, where = operation()
            results = [attempt(use, root) for root in (A, B)]
        if results[0] != results[1]:
            print(f'seed {SEED} step {step}: {name} {where!r}: {str(results[0])[:300]} in the first tree, {str(results[1])[:300]} in the second')
            return 1
        if results[0][0] == 'ok': succeeded[name] = succeeded.get(name, 0) + 1
    for pair in held:
        for fd in pair: os.close(fd)
    first, second = tree(A), tree(B)
    for name in sorted(set(first) | set(second)):
        if first.get(name) != second.get(name):
            print(f'seed {SEED}: {name!r} differs: {str(first.get(name))[:300]} / {str(second.get(name))[:300]}')
            return 1
    print(json.dumps({'files': len(first), 'succeeded': succeeded}))
    return 0


sys.exit(main())
