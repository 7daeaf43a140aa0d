# idmap.py SOURCE TARGET ID COUNT: mounts SOURCE on TARGET with owners 0.. shown as ID.. (mount_setattr(2); util-linux has it since 2.39 only).
import ctypes, os, signal, struct, subprocess, sys

source, target, first, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
libc = ctypes.CDLL(None, use_errno=True)
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
AT_EMPTY_PATH, OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH, MOUNT_ATTR_IDMAP = 0x1000, 1, 4, 0x100000


def check(result, what):
    if result < 0:
        sys.exit('%s: %s' % (what, os.strerror(ctypes.get_errno())))
    return result


child = subprocess.Popen(['unshare', '--user', 'sh', '-c', 'echo; exec sleep 60'], stdout=subprocess.PIPE)
child.stdout.read(1)
for name in ('uid_map', 'gid_map'):
    with open('/proc/%d/%s' % (child.pid, name), 'w') as file:
        file.write('0 %d %d' % (first, count))
names = os.open('/proc/%d/ns/user' % child.pid, os.O_RDONLY)
tree = check(libc.syscall(OPEN_TREE, -100, source.encode(), OPEN_TREE_CLONE | os.O_CLOEXEC), 'open_tree')
attributes = struct.pack('QQQQ', MOUNT_ATTR_IDMAP, 0, 0, names)
check(libc.syscall(MOUNT_SETATTR, tree, b'', AT_EMPTY_PATH, attributes, len(attributes)), 'mount_setattr')
check(libc.syscall(MOVE_MOUNT, tree, b'', -100, target.encode(), MOVE_MOUNT_F_EMPTY_PATH), 'move_mount')
child.send_signal(signal.SIGKILL)
child.wait()
