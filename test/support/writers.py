#!/usr/bin/env python3
"""writers.py MOUNT WRITERS: each writer works in a directory of its own, and on files of the image that are its own (every WRITERS-th `directory-N/file-M`), and
knows what must be there. No operation may fail, none may be done twice. Runs until its input ends; then every writer compares all of its files.
Prints 'writing' when all write, 'wrong ...' for whatever is not as it must be, and at the end 'end OPERATIONS'."""
import os, random, signal, sys, time

MOUNT, WRITERS = sys.argv[1], int(sys.argv[2])
running = True


def stop(*_):
    global running
    running = False


class Writer:
    def __init__(self, number):
        self.rng = random.Random(number)
        self.root = os.path.join(MOUNT, f'writer-{number}')
        self.files, self.directories, self.links, self.operations, self.last = {}, [self.root], 0, 0, 'nothing'
        self.held = None
        os.mkdir(self.root)
        for directory in sorted(name for name in os.listdir(MOUNT) if name.startswith('directory-')):
            for name in os.listdir(os.path.join(MOUNT, directory)):
                if name.startswith('file-') and int(name[5:]) % WRITERS == number:
                    path = os.path.join(MOUNT, directory, name)
                    with open(path, 'rb') as file: self.files[path] = bytearray(file.read())

    def new(self):
        self.links += 1
        return os.path.join(self.rng.choice(self.directories), f'f{self.links}')

    def step(self):
        rng, files = self.rng, self.files
        what = rng.choice(['create', 'create', 'append', 'append', 'write', 'truncate', 'rename', 'replace', 'link', 'unlink', 'mkdir', 'rmdir', 'xattr', 'held', 'symlink'])
        path = rng.choice(sorted(files)) if files else None
        self.last = f'{what} {path}'
        if what == 'create' and len(files) < 60:
            made = self.new()
            self.last = f'{what} {made}'
            data = rng.randbytes(rng.choice([0, 10, 5000]))
            fd = os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
            os.write(fd, data)
            os.close(fd)
            files[made] = bytearray(data)
        elif what == 'append' and path:
            data = b'%d,' % self.operations
            fd = os.open(path, os.O_WRONLY | os.O_APPEND)
            os.write(fd, data)
            os.close(fd)
            files[path] += data
        elif what == 'write' and path:
            at, data = rng.randrange(len(files[path]) + 1), rng.randbytes(3000)
            fd = os.open(path, os.O_RDWR)
            os.pwrite(fd, data, at)
            os.close(fd)
            files[path][at:at + len(data)] = data
        elif what == 'truncate' and path:
            size = rng.randrange(len(files[path]) + 1)
            os.truncate(path, size)
            del files[path][size:]
        elif what == 'rename' and path:
            to = self.new()
            os.rename(path, to)
            files[to] = files.pop(path)
        elif what == 'replace' and len(files) > 1:
            to = rng.choice(sorted(name for name in files if name != path))
            os.rename(path, to)
            files[to] = files.pop(path)
        elif what == 'link' and path:
            to = self.new() # and away with the old name, so that a file has one
            os.link(path, to)
            os.unlink(path)
            files[to] = files.pop(path)
        elif what == 'unlink' and len(files) > 5:
            os.unlink(path)
            del files[path]
            if os.path.lexists(path): raise AssertionError('it is still there')
        elif what == 'mkdir' and len(self.directories) < 12:
            made = os.path.join(rng.choice(self.directories), f'd{self.operations}')
            os.mkdir(made)
            self.directories.append(made)
        elif what == 'rmdir' and len(self.directories) > 1:
            gone = rng.choice(self.directories[1:])
            inside = any(name.startswith(gone + '/') for name in list(files) + self.directories)
            try:
                os.rmdir(gone)
                if inside: raise AssertionError('it was not empty')
                self.directories.remove(gone)
            except OSError as error:
                if not inside or error.errno != 39: raise
        elif what == 'xattr' and path:
            os.setxattr(path, 'user.once', b'%d' % self.operations, os.XATTR_CREATE)
            if os.getxattr(path, 'user.once') != b'%d' % self.operations: raise AssertionError('another value')
            os.removexattr(path, 'user.once')
        elif what == 'symlink':
            made = self.new()
            os.symlink('nowhere', made)
            if os.readlink(made) != 'nowhere': raise AssertionError('another target')
            os.unlink(made)
        elif what == 'held':
            # a file that stays open while servers come and go, and has no name
            if self.held is None:
                made = self.new()
                fd = os.open(made, os.O_CREAT | os.O_EXCL | os.O_RDWR)
                os.unlink(made)
                self.held = (fd, bytearray())
            fd, content = self.held
            data = b'%d;' % self.operations
            os.pwrite(fd, data, len(content))
            content += data
            if os.pread(fd, len(content) + 10, 0) != content: raise AssertionError('another content')
            if len(content) > 500:
                os.close(fd)
                self.held = None
        if rng.random() < 0.2 and files: self.check(rng.choice(sorted(files)))
        self.operations += 1

    def check(self, path):
        with open(path, 'rb') as file: found = file.read()
        if found != self.files[path]: raise AssertionError(f'{path} has {len(found)} bytes, {found[-60:]!r}, wants {len(self.files[path])}, {bytes(self.files[path][-60:])!r}')
        if os.stat(path).st_nlink != 1: raise AssertionError(f'{path} has {os.stat(path).st_nlink} names')

    def finish(self):
        for path in self.files: self.check(path)
        there = {os.path.join(directory, name) for directory, _, names in os.walk(self.root) for name in names}
        mine = {path for path in self.files if path.startswith(self.root + '/')}
        if there != mine: raise AssertionError(f'names: {sorted(there ^ mine)[:5]}')


def work(number, ready):
    writer = None
    try:
        writer = Writer(number)
        os.write(ready, b'.')
        while running: writer.step()
        writer.last = 'the comparison'
        writer.finish()
    except BaseException as error:
        print(f'wrong writer {number}, {writer.last if writer else "its start"}: {type(error).__name__}: {error}', flush=True)
    return writer.operations if writer else 0


def main():
    signal.signal(signal.SIGTERM, stop)
    read, ready = os.pipe()
    results, result = os.pipe()
    children = []
    for number in range(WRITERS):
        pid = os.fork()
        if pid == 0:
            os.write(result, b'%20d' % work(number, ready))
            os._exit(0)
        children.append(pid)
    os.close(ready)
    for _ in range(WRITERS): os.read(read, 1)
    print('writing', flush=True)
    sys.stdin.read()
    for pid in children: os.kill(pid, signal.SIGTERM)
    for pid in children: os.waitpid(pid, 0)
    print(f'end {sum(int(os.read(results, 20)) for _ in range(WRITERS))}', flush=True)


main()
