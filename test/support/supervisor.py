# A supervisor as the snapshotter's (SPEC: spec-surface.md B.7), independent of our code: it listens, keeps what a daemon sends with the first descriptor,
# and hands both to the next one. Commands on stdin, one a line, each answered by one line on stdout.
#   receive        the next connection saves: reads to the end of the stream
#   send           the next connection restores: bytes, the descriptor with the first of them, end of the stream
#   send-only N    the first N bytes; send-damaged: one byte differs; send-nothing; send-bare: without a descriptor; hang: accepts and is silent
#   drop           forgets what it keeps; write FILE: writes the bytes that it keeps into a file
import array, os, socket, sys, threading

listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(8)
data, fd = b'', None


def say(text):
    sys.stdout.write(text + '\n')
    sys.stdout.flush()


def receive(connection):
    global data, fd
    parts, fds = [], []
    while True:
        part, ancillary, _, _ = connection.recvmsg(1024, socket.CMSG_SPACE(4 * 4))
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array('i')
                numbers.frombytes(value[:len(value) - len(value) % 4])
                if parts and not fds:
                    return 'error: the descriptor came late'
                fds.extend(numbers)
        if not part:
            break
        parts.append(part)
    if not fds:
        return 'error: no descriptor'
    for extra in fds[1:]:
        os.close(extra)
    if fd is not None:
        os.close(fd)
    data, fd = b''.join(parts), fds[0]
    return 'received %d' % len(data)


def send(connection, payload, with_fd):
    first, rest = payload[:300], payload[300:]
    connection.sendmsg([first], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [fd]))] if with_fd else [])
    connection.sendall(rest)
    return 'sent %d' % len(payload)


hanging = []
for line in sys.stdin:
    command, *words = line.split()
    if command == 'drop':
        if fd is not None:
            os.close(fd)
        data, fd = b'', None
        say('dropped')
        continue
    if command == 'write':
        with open(words[0], 'wb') as file:
            file.write(data)
        say('written')
        continue
    say('ready')
    connection, _ = listener.accept()
    try:
        if command == 'receive':
            answer = receive(connection)
        elif command == 'send':
            answer = send(connection, data, True)
        elif command == 'send-only':
            answer = send(connection, data[:int(words[0])], True)
        elif command == 'send-damaged':
            at = len(data) // 2
            answer = send(connection, data[:at] + bytes([data[at] ^ 1]) + data[at + 1:], True)
        elif command == 'send-bare':
            answer = send(connection, data, False)
        elif command == 'hang':
            hanging.append(connection)
            say('hangs')
            continue
        else:
            answer = 'sent nothing'
    except OSError as error:
        answer = 'error: %s' % error
    connection.close()
    say(answer)
