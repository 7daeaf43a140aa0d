// One row per failure a caller may act on. Code, retry policy, FUSE errno and docs/errors.md all come from here.

/** `retry`: whether the same call may succeed later. `meaning`: the sentence that docs/errors.md prints. */
export const ERROR_TABLE = {
  FORMAT_BAD_MAGIC:        { retry: false, meaning: 'bytes are not the structure they claim to be' },
  FORMAT_TRUNCATED:        { retry: false, meaning: 'a structure runs past the end of its buffer' },
  FORMAT_OUT_OF_RANGE:     { retry: false, meaning: 'a value does not fit its field, or points outside its table' },
  FORMAT_INVALID:          { retry: false, meaning: 'a structure breaks a rule of its format; the message names the rule' },
  FORMAT_UNSUPPORTED:      { retry: false, meaning: 'a valid image or archive uses a feature that this version does not read' },
  FORMAT_DIGEST_MISMATCH:  { retry: false, meaning: 'metadata does not hash to its recorded digest' },
  TAR_INVALID:             { retry: false, meaning: 'a tar archive breaks a rule of its format; the message names the entry' },
  TAR_TRUNCATED:           { retry: false, meaning: 'a tar archive ends inside an entry' },
  TAR_UNSAFE_PATH:         { retry: false, meaning: 'a tar entry names a path that leaves the archive (..)' },
  CODEC_CORRUPT:           { retry: false, meaning: 'compressed data does not decode to the announced size' },
  NATIVE_UNAVAILABLE:      { retry: false, meaning: 'the native addon cannot be loaded on this platform; the message names platform and remedy' },
  NATIVE_SYSCALL:          { retry: false, meaning: 'a system call failed; context has its name and errno' },
  STORAGE_DIGEST_MISMATCH: { retry: true,  meaning: 'a fetched chunk does not hash to its recorded digest' },
  STORAGE_UNREACHABLE:     { retry: true,  meaning: 'the backend did not answer, or answered with an error that may pass' },
  STORAGE_NOT_FOUND:       { retry: false, meaning: 'the backend has no such blob' },
  STORAGE_DENIED:          { retry: false, meaning: 'the backend refused the credentials' },
  STORAGE_SHORT_READ:      { retry: true,  meaning: 'the backend sent fewer or other bytes than the range asked for' },
  STORAGE_CACHE_IO:        { retry: true,  meaning: 'the cache directory cannot be read or written' },
  RAFS_NOT_FOUND:          { retry: false, meaning: 'no such file or directory in the image' },
  RAFS_NOT_DIRECTORY:      { retry: false, meaning: 'a path component is not a directory' },
  RAFS_IS_DIRECTORY:       { retry: false, meaning: 'the path is a directory' },
  RAFS_NOT_SYMLINK:        { retry: false, meaning: 'the path is not a symbolic link' },
  RAFS_LOOP:               { retry: false, meaning: 'too many levels of symbolic links' },
  RAFS_NO_XATTR:           { retry: false, meaning: 'no such extended attribute' },
  BUILD_INVALID_OPTION:    { retry: false, meaning: 'a build option has a value that cannot be used, or options contradict each other' },
  BUILD_SOURCE:            { retry: false, meaning: 'the source cannot be read or holds what an image cannot express' },
  BUILD_INCONSISTENT:      { retry: false, meaning: 'layers that are merged differ in version, compressor, digester or chunk size' },
  BUILD_OUTPUT:            { retry: false, meaning: 'the output cannot be written' },
  CONFIG_INVALID:          { retry: false, meaning: 'a configuration file or value is wrong; the message names the key' },
  REGISTRY_BAD_REFERENCE:  { retry: false, meaning: 'an image reference cannot be parsed' },
  REGISTRY_NOT_FOUND:      { retry: false, meaning: 'the registry has no such repository, tag, manifest or blob' },
  REGISTRY_DENIED:         { retry: false, meaning: 'the registry refused the credentials, or none were found' },
  REGISTRY_UNREACHABLE:    { retry: true,  meaning: 'the registry did not answer, or answered with an error that may pass' },
  REGISTRY_PROTOCOL:       { retry: false, meaning: 'the registry answered something that the distribution specification does not allow' },
  REGISTRY_DIGEST_MISMATCH: { retry: true, meaning: 'content from the registry does not hash to its digest' },
  REGISTRY_STORE:          { retry: false, meaning: 'an OCI layout, an image archive or a spool file cannot be read or written' },
  IMAGE_UNSUPPORTED:       { retry: false, meaning: 'the image is of a kind that cannot be converted (schema 1, Windows, artifact ...); the message names it' },
  IMAGE_INVALID:           { retry: false, meaning: 'manifest, config or layers of an image contradict each other' },
  IMAGE_DIFFERS:           { retry: false, meaning: 'check found differences between image and source' },
  SERVE_MOUNT:             { retry: false, meaning: 'a file system cannot be mounted or unmounted' },
  SERVE_NOT_MOUNTED:       { retry: false, meaning: 'nothing is mounted at that mountpoint' },
  SERVE_ALREADY_MOUNTED:   { retry: false, meaning: 'something else is mounted at that mountpoint' },
  SERVE_UNSUPPORTED:       { retry: false, meaning: 'the daemon has no such kind of file system or service' },
  SERVE_NO_METRICS:        { retry: false, meaning: 'nothing is counted under that name' },
  SERVE_STATE:             { retry: false, meaning: 'the request does not fit the state of the daemon' },
  SERVE_NOT_READY:         { retry: true,  meaning: 'the daemon cannot do that yet' },
  SERVE_BAD_REQUEST:       { retry: false, meaning: 'a file system request breaks its protocol' },
  SERVE_STALE_NODE:        { retry: false, meaning: 'a file system request names a file of an image that is no longer mounted' },
  SERVE_SUPERVISOR:        { retry: true,  meaning: 'the supervisor that keeps the daemon\'s state cannot be reached or does not keep to its protocol' },
  SERVE_KEEPER:            { retry: true,  meaning: 'the keeper that answers the kernel\'s questions cannot be started, or is lost' },
  SERVE_BAD_GUEST:         { retry: false, meaning: 'a virtual machine or its monitor breaks the protocol of its device' },
  SERVE_BAD_STATE_FILE:    { retry: false, meaning: 'a saved daemon state is damaged or of an unknown version' },
} as const satisfies Record<string, { retry: boolean; meaning: string }>

export type ErrorCode = keyof typeof ERROR_TABLE

export type ErrorContext = Readonly<Record<string, string | number | bigint | boolean | undefined>>

/** The only error class of the project. Match on `code`, never on the class or the text. */
export class CodedError extends Error {
  override readonly name = 'CodedError'
  readonly code: ErrorCode
  readonly context: ErrorContext

  constructor(code: ErrorCode, message: string, context: ErrorContext = {}, options?: ErrorOptions) {
    super(message, options)
    this.code = code
    this.context = context
  }

  /** Whether the same call may succeed later. */
  get retryable(): boolean {
    return ERROR_TABLE[this.code].retry
  }
}

/** Match on code, never on `instanceof`: it survives two copies of the package. */
export function hasCode(error: unknown, code: ErrorCode): error is CodedError {
  return error instanceof Error && 'code' in error && error.code === code
}

/** Whether `error` is Node's own for a system call, with one of these codes (`ENOENT` …). */
export function isSystemError(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code))
}

/** Any coded error of this project (from any copy of the package), as opposed to a bug or a Node error. */
export function isCoded(error: unknown): error is CodedError {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' && Object.hasOwn(ERROR_TABLE, error.code)
}

/** Error parts that survive structured clone: `code` of an Error does not (STYLE.md section 3). */
export interface ErrorMessage { readonly code: ErrorCode | undefined; readonly message: string; readonly context: ErrorContext }

/** For a worker boundary; `fromMessage` is the other side. */
export function toMessage(error: unknown): ErrorMessage {
  if (isCoded(error)) return { code: error.code, message: error.message, context: error.context }
  return { code: undefined, message: error instanceof Error ? error.message : String(error), context: {} }
}

/** See `toMessage`. */
export function fromMessage({ code, message, context }: ErrorMessage): Error {
  return code === undefined ? new Error(message) : new CodedError(code, message, context)
}

/** Backend-supplied text for a message: control characters replaced, capped at `limit` characters. */
export function foreignText(text: string, limit = 200): string {
  const clean = text.replace(/[\u0000-\u001f\u007f]/g, ' ')
  return clean.length > limit ? `${clean.slice(0, limit)}…` : clean
}
