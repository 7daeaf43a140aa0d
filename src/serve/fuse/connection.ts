// The FUSE handshake: what this server asks of the kernel and what both agreed on. The outcome is plain data, part of the daemon state:
// a daemon that takes the connection over continues with it, since the kernel sends INIT once.
// SPEC: linux fs/fuse/inode.c process_init_reply.

import { CodedError } from '../../core/errors.ts'
import { KiB, MiB } from '../../core/units.ts'
import { FUSE_INIT_FLAG as F, FUSE_INIT_FLAG2, FUSE_KERNEL_MINOR_VERSION, FUSE_KERNEL_VERSION, type InitIn, type InitOut } from '../../wire/fuse/init.ts'

/** LIMIT: 7.28 (Linux 4.20) brought MAX_PAGES and CACHE_SYMLINKS; every structure used here has had its size since. */
const MIN_MINOR = 28
/** LIMIT: the kernel's own maximum; 256 pages = 1 MiB, a whole chunk of an ordinary image. */
export const MAX_PAGES = 256
/** Largest READ the kernel sends. */
export const MAX_READ = MAX_PAGES * 4 * KiB
/** LIMIT: sizes the request slots; a page of one that was never that long is never touched. Larger writes gain little: a request costs 20 µs. */
const MAX_WRITE = 128 * KiB
/** LIMIT: read-ahead that no task waits for. More than the kernel's 12, so that a sequential reader keeps several chunks in flight. */
const MAX_BACKGROUND = 64

/** Bytes a request slot needs. SPEC: linux fs/fuse/dev.c fuse_dev_do_read refuses buffers below max_write + headers, and below 8192. */
export const REQUEST_SLOT = 8 * KiB + MAX_WRITE
/** Bytes a reply may need: the largest directory read or xattr, with its header. */
export const REPLY_SLOT = MiB + 4 * KiB

/** What a server decides before the handshake. Plain data. */
export interface ConnectionPolicy {
  /** Whether an image with extended attributes may ever be served here. If not, getxattr is refused once and for ever: ENOSYS latches. */
  readonly xattrs: boolean
  /** Whether the mount is writable as seen by the kernel. Then every open is asked for, to refuse those for writing at once. */
  readonly writable: boolean
  /** Every open is asked for all the same: the answers say how files are read. */
  readonly opens?: boolean
}

/** Outcome of the handshake. Plain data, part of the daemon state. */
export interface Connection extends Omit<ConnectionPolicy, 'opens'> {
  readonly minor: number
  readonly flags: number
  /** With HAS_RESEND the kernel gives out again, on demand, what a server has read and not answered. */
  readonly flags2: number
  readonly maxReadahead: number
  /** Opens and opendirs cost no message: the kernel assumes keep-cache and cache-dir, which is what a static image wants. */
  readonly zeroMessageOpens: boolean
}

/**
 * Not asked for, on purpose: AUTO_INVAL_DATA (images never change, it would drop page caches), WRITEBACK_CACHE, and cloned descriptors
 * (a request read through a clone dies with it; reference/fuse-node.md section 6).
 */
const WANTED = F.ASYNC_READ | F.EXPORT_SUPPORT | F.DO_READDIRPLUS | F.READDIRPLUS_AUTO | F.ASYNC_DIO | F.NO_OPEN_SUPPORT | F.PARALLEL_DIROPS
  // POSIX_ACL: without it the kernel asks for both ACLs of every file on every `ls -l`; with it, it caches that there is none.
  | F.POSIX_ACL | F.MAX_PAGES | F.CACHE_SYMLINKS | F.NO_OPENDIR_SUPPORT | F.EXPLICIT_INVAL_DATA | F.INIT_EXT

/** BIG_WRITES: else a write is cut into pages. DONT_MASK: whether the umask counts is the directory's business, which may have a default ACL instead. */
const WANTED_TO_WRITE = F.BIG_WRITES | F.DONT_MASK

/** ALLOW_IDMAP: containers in a user name space see owners through an idmapped mount; permissions are the kernel's business anyway. */
const WANTED2 = FUSE_INIT_FLAG2.HAS_RESEND | FUSE_INIT_FLAG2.ALLOW_IDMAP

/** @throws SERVE_MOUNT when the kernel speaks another protocol or a too old one */
export function negotiate(init: InitIn, policy: ConnectionPolicy): { connection: Connection; reply: InitOut } {
  if (init.major !== FUSE_KERNEL_VERSION || init.minor < MIN_MINOR) {
    throw new CodedError('SERVE_MOUNT', `the kernel speaks FUSE ${init.major}.${init.minor}, needed is ${FUSE_KERNEL_VERSION}.${MIN_MINOR} (Linux 4.20) or later`,
      { major: init.major, minor: init.minor })
  }
  const flags = (init.flags & (policy.writable ? WANTED | WANTED_TO_WRITE : WANTED)) >>> 0
  const connection: Connection = {
    xattrs: policy.xattrs,
    writable: policy.writable,
    minor: Math.min(init.minor, FUSE_KERNEL_MINOR_VERSION),
    flags,
    flags2: (flags & F.INIT_EXT) === 0 ? 0 : init.flags2 & WANTED2,
    maxReadahead: Math.max(init.maxReadahead, MAX_READ),
    zeroMessageOpens: !policy.writable && policy.opens !== true && (flags & F.NO_OPEN_SUPPORT) !== 0 && (flags & F.NO_OPENDIR_SUPPORT) !== 0,
  }
  return {
    connection,
    reply: {
      major: FUSE_KERNEL_VERSION, minor: connection.minor, maxReadahead: connection.maxReadahead, flags, flags2: connection.flags2,
      maxBackground: MAX_BACKGROUND, congestionThreshold: (MAX_BACKGROUND * 3) / 4, maxWrite: MAX_WRITE, timeGranularity: 1,
      maxPages: MAX_PAGES, mapAlignment: 0,
    },
  }
}
