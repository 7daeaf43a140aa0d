// What the C addon offers, as TypeScript sees it. native/*.c implements it, one capability a file; src/native/load.ts loads it.
// Synchronous functions return a value >= 0, or a negative errno; bulk functions run on libuv's thread pool. Nothing here decides anything.
// An argument of the wrong type, or a slice that leaves its buffer, throws a TypeError at once. The buffers of a bulk call are in use, and must
// neither change nor be unmapped nor be transferred to another thread, until its promise has settled.

/** Numbers of the on-disk compression enumeration (SPEC: spec-rafs.md "Global enumerations"). */
export type CompressorNumber = 0 | 1 | 2 | 3
/** 0 blake3, 1 sha256: the on-disk digest enumeration. */
export type DigesterNumber = 0 | 1

export interface NativeAddon {
  // --- codecs.c: one call, one buffer -----------------------------------------------------------------------------------
  /** LZ4 block. Bytes written, or 0 when the result does not fit `dst`. */
  lz4Compress(src: Uint8Array, dst: Uint8Array): number
  /** Bytes written, or -1 when `src` is corrupt or does not fit `dst`. */
  lz4Decompress(src: Uint8Array, dst: Uint8Array): number
  zstdCompress(src: Uint8Array, dst: Uint8Array, level: number): number
  zstdDecompress(src: Uint8Array, dst: Uint8Array): number
  /** One gzip or zlib member that is exactly `src`. */
  gzipDecompress(src: Uint8Array, dst: Uint8Array): number
  /** CRC-32C (Castagnoli, reflected), unsigned. */
  crc32c(bytes: Uint8Array): number
  /** 32-byte digest of `bytes` into `out` at `outOffset`. */
  blake3(bytes: Uint8Array, out: Uint8Array, outOffset: number): void
  sha256(bytes: Uint8Array, out: Uint8Array, outOffset: number): void

  // --- bulk.c: many files or chunks in one crossing, off the main thread --------------------------------------------------
  /** slices: [offset, length] pairs into `buffer`. digests: 32 bytes a slice. crcs: one CRC-32C a slice, or empty: none is computed. */
  hashSlices(buffer: Uint8Array, slices: Uint32Array, digester: DigesterNumber, digests: Uint8Array, crcs: Uint32Array): Promise<void>
  /**
   * Compresses each slice and lays the results back to back in `out` (at least as long as all slices together).
   * sizes[i] is the stored size; equal to the slice's length when compression did not make it strictly smaller and it is stored raw.
   * Resolves to the bytes used in `out`.
   */
  compressSlices(buffer: Uint8Array, slices: Uint32Array, compressor: CompressorNumber, level: number, out: Uint8Array, sizes: Uint32Array): Promise<number>
  /**
   * Decodes slices[i] = [offset, length] of `buffer` into outSlices[i] = [offset, length] of `out`; compressors[i] says how (0 = copy).
   * With `digests` (32 bytes a slice) each result is hashed and compared. results[i]: 0 fine, 1 does not decode to exactly that length, 2 digest differs.
   * Resolves to the number of results that are not 0.
   */
  decodeSlices(buffer: Uint8Array, slices: Uint32Array, compressors: Uint8Array, out: Uint8Array, outSlices: Uint32Array,
    digester: DigesterNumber, digests: Uint8Array | null, results: Uint8Array): Promise<number>
  /**
   * The chunks of a range. units: [offset, length] in `stored`, [offset, size] in `out`, compressor (0 = copy). chunks: number of the unit, offset of the
   * decoded bytes in `out`, offset to which they are moved, size; what follows up to a multiple of `alignment` is cleared. digests: 32 bytes a chunk, or
   * null; crcs: one CRC-32C a chunk, or empty. results[i]: 0 fine, 1 the chunk's unit does not decode to exactly that length (nothing else is written then).
   */
  decodeChunks(stored: Uint8Array, units: Uint32Array, out: Uint8Array, chunks: Uint32Array, alignment: number,
    digester: DigesterNumber, digests: Uint8Array | null, crcs: Uint32Array, results: Uint8Array): Promise<void>
  /**
   * Reads parts of many files. paths: NUL-terminated absolute paths back to back. ranges: [file offset, length, offset in `buffer`] a path.
   * results[i]: bytes read (short when the file is shorter), or a negative errno. Files are opened O_NOFOLLOW | O_NOATIME where allowed.
   */
  readFiles(paths: Uint8Array, ranges: Float64Array, buffer: Uint8Array, results: Int32Array): Promise<void>
  /** One directory: for each entry lstat, link target and all xattrs, packed as src/native/scan-directory.ts decodes it. Rejects with {errno, path}. */
  scanDirectory(path: Uint8Array): Promise<Uint8Array>

  // --- stream.c: streaming decompression (gzip with concatenated members, zstd with concatenated frames) -----------------------
  /**
   * A decoder; `kind` 2 gzip, 3 zstd. Freed by streamClose or the garbage collector. `windowLogMax` (zstd, 10..31): frames with a larger
   * window are refused, 27 (128 MiB, what every decoder must offer) unless asked.
   */
  streamOpen(kind: 2 | 3, windowLogMax?: number): object
  /**
   * One step on the thread pool. result: [consumed, produced, state]; state 0 wants more, 1 between members (a valid end), -1 corrupt,
   * -2 the window is larger than allowed or memory is short. With `output` filled to the brim there may be more: step again before reading on.
   * Trailing zero bytes after the last gzip member are consumed and ignored.
   */
  streamStep(decoder: object, input: Uint8Array, output: Uint8Array, result: Int32Array): Promise<void>
  streamClose(decoder: object): void

  // --- deflate.c: parts of one gzip member --------------------------------------------------------------------------------------
  /**
   * Compresses `length` bytes of `source` from `offset` as raw deflate, with the 32 KiB before them as known; the last part ends the stream, others
   * end on a byte. result: [size, CRC-32 of the part]. Rejects with ENOSPC when `out` is too small.
   */
  deflatePart(source: Uint8Array, offset: number, length: number, level: number, isLast: boolean, out: Uint8Array, result: Uint32Array): Promise<void>
  /** CRC-32 of two parts back to back, from those of each; `length` is that of the second. */
  crc32Combine(first: number, second: number, length: number): number

  // --- mmap.c ---------------------------------------------------------------------------------------------------------------
  /**
   * Maps `length` bytes of `fd` from `offset` (a multiple of the page size), shared; writable or read-only. The mapping lives until the buffer is
   * collected or unmapped. Throws an Error with a positive `errno`: 61 (ENODATA) when the file is shorter than that. Touching a page behind
   * the end of a file that shrank later raises SIGBUS; writing to a read-only mapping SIGSEGV.
   */
  mmap(fd: number, offset: number, length: number, writable: boolean): ArrayBuffer
  /** Detaches the buffer (its length becomes 0) and unmaps. Twice does nothing. */
  munmap(mapping: ArrayBuffer): void
  /** 32-bit atomic operations on a mapping that other processes share. */
  atomicOr(mapping: Uint32Array, index: number, bits: number): number
  atomicCompareExchange(mapping: Uint32Array, index: number, expected: number, replacement: number): number

  // --- memory.c ---------------------------------------------------------------------------------------------------------------
  /** mallopt(3) for the whole process: heaps of malloc at most, and bytes from which a buffer is a mapping of its own. 0, or a negative errno. */
  leanMalloc(arenas: number, mapped: number): number

  // --- file.c: what Node lacks. Paths are bytes without a NUL. -----------------------------------------------------------------
  /** Attribute names as the kernel lists them (NUL-terminated, back to back), or a negative errno. Never follows a link. */
  listXattr(path: Uint8Array): Uint8Array | number
  getXattr(path: Uint8Array, name: Uint8Array): Uint8Array | number
  setXattr(path: Uint8Array, name: Uint8Array, value: Uint8Array): number
  mknod(path: Uint8Array, mode: number, rdev: number): number
  /** mtime = atime, never follows a link. */
  utimens(path: Uint8Array, seconds: number, nanoseconds: number): number
  fdatasync(fd: number): number
  /** fallocate(2): mode bits as the kernel's (1 keep size, 2 punch hole). */
  fallocate(fd: number, mode: number, offset: number, length: number): number
  /** SEEK_DATA/SEEK_HOLE: next data (whence 3) or hole (4) at or after `offset`, or a negative errno. */
  lseek(fd: number, offset: number, whence: number): number
  /** flock(2): 1 shared, 2 exclusive, 8 unlock; | 4 = do not wait. */
  flock(fd: number, operation: number): number
  /** pread(2) into `buffer` at `bufferOffset`. */
  pread(fd: number, buffer: Uint8Array, bufferOffset: number, length: number, offset: number): number
  /** preadv2(2) of all of `buffer`, without waiting for a disk: as much as is in memory, or -11 (EAGAIN), or another negative errno. */
  preadNow(fd: number, buffer: Uint8Array, offset: number): number
  umask(mask: number): number
  /** memfd_create(2), close-on-exec: a file that lives as long as somebody has it open. */
  memfdCreate(name: string): number
  /** dup(2), close-on-exec: the same open file, which an open of its name is not. */
  duplicateFd(fd: number): number

  // --- beneath.c: below a directory. A `name` is a byte string, one component: '' . .. / and NUL are refused (EINVAL). No link is followed. ------
  /** An O_PATH descriptor of a directory: where a tree begins. */
  beneathRoot(path: Uint8Array): number
  /** openat2(2) of a path of several components, with RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | `resolve` (1 no other file system, 4 no symbolic links). */
  beneathOpen(directory: number, path: Uint8Array, flags: number, mode: number, resolve: number): number
  /** openat(2) with O_NOFOLLOW | O_CLOEXEC. */
  openChild(directory: number, name: string, flags: number, mode: number): number
  /** An O_PATH descriptor of an entry, whatever it is; fills `status` (src/native/beneath.ts), handle included. */
  lookupChild(directory: number, name: string, status: Uint8Array): number
  /** Opens what `fd` refers to, non-blocking: a regular file or a directory, anything else is -6 (ENXIO). `mode` matters with O_TMPFILE. */
  reopen(fd: number, flags: number, mode: number): number
  /** open_by_handle_at(2); `mount` is a descriptor of that mount that is open for reading. */
  openHandle(mount: number, type: number, handle: Uint8Array, flags: number): number
  duplicate(fd: number): number
  /** Fills `status` (src/native/beneath.ts); its handle only when asked for. */
  statusOf(fd: number, status: Uint8Array, withHandle: boolean): number
  /** lseek(2) to a cookie of 64 bits and getdents64(2) into `length` bytes of `buffer` at `at`: bytes, 0 at the end. `directoryRecords` decodes them. */
  readDirectory(fd: number, cookieLow: number, cookieHigh: number, buffer: Uint8Array, at: number, length: number): number
  makeDirectory(directory: number, name: string, mode: number): number
  makeNodeAt(directory: number, name: string, mode: number, rdev: number): number
  makeLink(directory: number, name: string, target: Uint8Array): number
  /** One more name for what `fd` refers to. */
  hardLink(fd: number, directory: number, name: string): number
  /** renameat2(2): flags 1 no replacing, 2 exchange, 4 leave a whiteout. */
  renameAt(directory: number, name: string, newDirectory: number, newName: string, flags: number): number
  removeAt(directory: number, name: string, isDirectory: boolean): number
  /** Target of the symbolic link that `fd` refers to: bytes. */
  readLinkOf(fd: number, buffer: Uint8Array, at: number, length: number): number

  // --- beneath-file.c: what is done to a file through a descriptor of it, O_PATH where nothing else is said --------------------------------------
  changeMode(fd: number, mode: number): number
  /** -1 leaves one as it is. */
  changeOwner(fd: number, uid: number, gid: number): number
  /** Nanoseconds 2^30 - 1 is now, 2^30 - 2 leaves one as it is (UTIME_NOW, UTIME_OMIT). */
  changeTimes(fd: number, accessSeconds: number, accessNanoseconds: number, changeSeconds: number, changeNanoseconds: number): number
  /** Of a descriptor that is open for writing. */
  changeSize(fd: number, size: number): number
  /** Writes a fuse_kstatfs (80 bytes) into `buffer` at `at`. */
  statfsOf(fd: number, buffer: Uint8Array, at: number): number
  /** Bytes, into `length` of `buffer` at `at`; with a length of 0 how many there are. */
  getXattrOf(fd: number, name: string, buffer: Uint8Array, at: number, length: number): number
  listXattrOf(fd: number, buffer: Uint8Array, at: number, length: number): number
  /** Flags 1: must not exist yet, 2: must exist. */
  setXattrOf(fd: number, name: string, value: Uint8Array, flags: number): number
  removeXattrOf(fd: number, name: string): number
  /** preadv2(2) into a slice of `buffer`; flags 8 (RWF_NOWAIT): -11 (EAGAIN) instead of waiting for the disk. */
  readAt(fd: number, buffer: Uint8Array, at: number, length: number, offset: number, flags: number): number
  /** pwritev2(2) from a slice of `buffer`. */
  writeAt(fd: number, buffer: Uint8Array, at: number, length: number, offset: number, flags: number): number
  /** copy_file_range(2). */
  copyRange(from: number, fromOffset: number, to: number, toOffset: number, length: number): number
  /** fsync(2) or fdatasync(2), of a descriptor that is really open. */
  syncFd(fd: number, dataOnly: boolean): number
  /** Who owns what THIS THREAD makes from now on; its capabilities over files stay. -1 (EPERM) when that is not allowed. */
  actAs(uid: number, gid: number): number
  /** What `umask` sets is this thread's alone from now on (its working directory too). */
  ownUmask(): number

  // --- mount.c ---------------------------------------------------------------------------------------------------------------
  mount(source: Uint8Array, target: Uint8Array, type: string, flags: number, data: Uint8Array): number
  umount(target: Uint8Array, flags: number): number

  // --- fsmount.c -------------------------------------------------------------------------------------------------------------
  /**
   * fsopen, fsconfig, fsmount and move_mount on the thread pool, where a mount may wait for files that this process serves. options: `key` or
   * `key=value` (less than 256 bytes each), NUL-terminated, back to back; attributes: MOUNT_ATTR_*. Rejects with {errno, path: what the kernel says}.
   */
  mountFileSystem(type: string, options: Uint8Array, target: Uint8Array, attributes: number): Promise<void>
  /** umount2(2) on the thread pool. Rejects with {errno}. */
  unmountFileSystem(target: Uint8Array, flags: number): Promise<void>

  // --- fuse.c: FUSE sessions. One call waits on a set of sessions, takes replies and delivers requests. -------------------------
  /** Opens /dev/fuse (non-blocking, close-on-exec) and mounts it; `data` is the kernel's option text without `fd=`. A descriptor, or a negative errno. */
  fuseMount(fsname: string, type: string, target: Uint8Array, flags: number, data: string): number
  /** A wait set (an epoll descriptor) or a negative errno. */
  waitSetCreate(): number
  /** Adds a descriptor (FUSE session, wake-up eventfd); `cookie` (0..2^31) comes back with each of its requests; kind 0 session, 1 wake-up. */
  waitSetAdd(set: number, fd: number, cookie: number, kind: number): number
  waitSetRemove(set: number, fd: number): number
  eventCreate(): number
  eventSignal(fd: number): number
  /**
   * Writes `replyCount` replies, then waits until something is readable and delivers up to as many requests as fit: one of each ready session.
   * After a reply the same session is read first, for all that waits there (mostly its client has asked again by then, or does within microseconds, for which it
   * looks before it sleeps), and every 16th time all are asked.
   * replies: [fd, offset in `out`, length, fd to take file bytes from or -1, file offset low, file offset high, file length] a row; a row with a file appends those bytes
   *          after the reply's header (whose length field already counts them) straight from the file, without crossing JavaScript. A file that
   *          cannot be read, or ends before, makes the reply an EIO.
   * requests (filled): [cookie, fd, offset in `input`, length] a row. length 0 with a cookie = the wake-up was signalled, once for all signals so far; negative length = -errno
   *          of that session, again at every call until it is removed (-19: unmounted).
   * Each request gets `slot` bytes of `input` (1 MiB + 4096 at least for max_write of 1 MiB). Returns the number of rows, 0 after the timeout, or a negative errno
   * (-22: a buffer is too small). `timeoutMs` -1 waits for ever. Any number of threads may wait on one set.
   * A reply refused with ENOENT (the request was interrupted) is ignored, other errors count in `errors[0]`. With `errors` of two numbers a
   * reply whose file lacks the bytes is not sent as EIO: it counts in `errors[1]`, its row's length becomes 0, and the call returns 0 at once.
   * With three numbers no file is waited for either: when a reply's bytes are not in memory the call returns 0 at once, and `errors[2]` is the number of
   * replies, from that one on, that are not written.
   */
  exchange(set: number, out: Uint8Array, replies: Int32Array, replyCount: number, input: Uint8Array, slot: number, requests: Int32Array, timeoutMs: number, errors: Int32Array): number
  /** One reply from any thread (misses): writes bytes, or header plus file bytes as in `exchange`. 0 (also when nobody waits for it) or a negative errno. Notifications have unique 0. */
  fuseReply(fd: number, header: Uint8Array, fileFd: number, fileOffset: number, fileLength: number): number
  /** close(2). The last descriptor of a FUSE session ends its connection: whoever waits for an answer gets ENOTCONN. */
  closeFd(fd: number): number
  // --- socket.c --------------------------------------------------------------------------------------------------------------
  /** A connected Unix socket (non-blocking, close-on-exec; `packets`: SOCK_SEQPACKET instead of a stream), or a negative errno: -11 (EAGAIN) when the listener's queue is full. */
  unixConnect(path: Uint8Array, packets: boolean): number
  /** A listening Unix socket at a path that does not exist yet, or a negative errno. */
  unixListen(path: Uint8Array, packets: boolean): number
  unixAccept(listener: number): number
  /** Two connected Unix sockets into `ends`; 0 or a negative errno. */
  socketPair(packets: boolean, ends: Int32Array): number
  /** SCM_RIGHTS over a connected Unix socket descriptor, with at least one byte. Bytes sent, or a negative errno. */
  sendFds(socket: number, bytes: Uint8Array, fds: Int32Array): number
  /** Bytes received (0: the peer closed), or a negative errno. `fds` is filled from its start, the rest is -1; when more came than fit, all are closed and it is -90 (EMSGSIZE). */
  receiveFds(socket: number, bytes: Uint8Array, fds: Int32Array): number

  // --- poll.c ----------------------------------------------------------------------------------------------------------------
  /**
   * Calls `callback` on this thread's event loop whenever `fd` is readable (events 1) or writable (2), for as long as it is so. The watch keeps the
   * loop alive, ends when it is collected, and must be ended before the descriptor is closed. The watch, or a negative errno.
   */
  watchBegin(fd: number, events: number, callback: () => void): object | number
  /** Twice does nothing. */
  watchEnd(watch: object): void

  // --- edge.c: waiting without reading -------------------------------------------------------------------------------------------
  /** Adds a descriptor to a wait set of its own kind (waitSetCreate, waitSetRemove): each new signal is told once, with `cookie`, and nothing is read. */
  edgeAdd(set: number, fd: number, cookie: number): number
  /** Waits until something was signalled; fills `cookies` (64 at most) and returns their number, 0 after `timeoutMs` (-1: never) or a signal, or a negative errno. */
  edgeWait(set: number, cookies: Int32Array, timeoutMs: number): number

  // --- guard.c -------------------------------------------------------------------------------------------------------------------
  /**
   * Guards a mapping of `mmap` whose file somebody else may cut short: instead of SIGBUS the whole mapping becomes zero pages of this process.
   * 0, or a negative errno (ENOSPC: 1024 mappings are guarded). Must be unguarded before it is unmapped.
   */
  guardMapping(mapping: ArrayBuffer): number
  /** 1 when that has happened, 0 when not, a negative errno for a mapping that is not guarded. */
  guardBroken(mapping: ArrayBuffer): number
  unguardMapping(mapping: ArrayBuffer): number

  // --- uffd.c: page faults of another process; addresses are its own ------------------------------------------------------------------
  /** Makes a userfaultfd that somebody sent non-blocking. */
  uffdPrepare(fd: number): number
  /** Address of the next fault, 0 for an event of another kind, or a negative errno: -11 (EAGAIN) when there is none. */
  uffdRead(fd: number): number
  /** Fills whole pages and wakes who waits for them: bytes copied, or a negative errno (-17: they are there already). */
  uffdCopy(fd: number, address: number, bytes: Uint8Array): number
  uffdZero(fd: number, address: number, length: number): number
  /** Touching the pages raises SIGBUS from now on (Linux 6.6). */
  uffdPoison(fd: number, address: number, length: number): number
  uffdWake(fd: number, address: number, length: number): number
}
