// The door to wherever blobs lie. A backend is ten lines: open a blob by id, read ranges of it.

export interface ReadOptions {
  readonly signal: AbortSignal
  /** Nobody waits for it; backends may tell their server so. */
  readonly prefetch?: boolean
  /** What this range was answered with before was wrong: another copy is to be asked, where there is one. */
  readonly afterWrong?: boolean
  /**
   * May be called as bytes come: `buffer` is what the read will resolve to, bytes [0, filled) are there. What it returns is to be awaited before more
   * is taken from the connection. An attempt that is repeated begins again, with another buffer.
   */
  readonly progress?: (buffer: Uint8Array, filled: number) => Promise<void> | undefined
  /** Where the bytes go; default a new buffer. Attempts that were given up may write into theirs for a while: only what the read resolved to may be used again. */
  readonly allocate?: (length: number) => Uint8Array
}

/** What `allocate` is without one. */
export function newBuffer(length: number): Uint8Array {
  return Buffer.allocUnsafeSlow(length)
}

export interface BlobReader {
  /** Length of the blob file in bytes. */
  size(options: { readonly signal: AbortSignal }): Promise<number>
  /**
   * Exactly `length` bytes from `offset`, never fewer or more.
   * STORAGE_SHORT_READ when the range leaves the blob or the server sends something else; STORAGE_NOT_FOUND, STORAGE_DENIED, STORAGE_UNREACHABLE.
   */
  read(offset: number, length: number, options: ReadOptions): Promise<Uint8Array>
}

/** What may change while an image is served; what is left out stays. */
export interface BackendChange {
  /** base64 of `user:password`; empty: look in docker's files (again). */
  readonly registryAuth?: string
  /** Empty: none. */
  readonly proxyUrl?: string
}

export interface BlobBackend {
  /** As the metrics API prints it: `localfs`, `registry` ... */
  readonly type: string
  /** Blobs lie on this machine: a request costs nothing, so none is made larger to save another. */
  readonly isLocal?: boolean
  /** Never touches the network: a blob that does not exist shows at the first read. */
  open(blobId: string): BlobReader
  /** Other credentials or another proxy from now on, for backends that have any. CONFIG_INVALID for values that cannot be used. */
  reconfigure?(change: BackendChange): void
  /** Frees descriptors and connections; reads under way may fail. */
  close(): Promise<void>
}
