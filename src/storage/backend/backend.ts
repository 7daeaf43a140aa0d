// The door to wherever blobs lie. A backend is ten lines: open a blob by id, read ranges of it.

/** `prefetch` marks reads nobody waits for; backends may tell their server so. */
export interface ReadOptions { readonly signal: AbortSignal; readonly prefetch?: boolean }

export interface BlobReader {
  /** Length of the blob file in bytes. */
  size(options: { readonly signal: AbortSignal }): Promise<number>
  /**
   * Exactly `length` bytes from `offset`, never fewer or more.
   * STORAGE_SHORT_READ when the range leaves the blob or the server sends something else; STORAGE_NOT_FOUND, STORAGE_DENIED, STORAGE_UNREACHABLE.
   */
  read(offset: number, length: number, options: ReadOptions): Promise<Uint8Array>
}

export interface BlobBackend {
  /** As the metrics API prints it: `localfs`, `registry` ... */
  readonly type: string
  /** Never touches the network: a blob that does not exist shows at the first read. */
  open(blobId: string): BlobReader
  /** Frees descriptors and connections; reads under way may fail. */
  close(): Promise<void>
}
