/** `ENOENT` and the like of an error that Node raised for a system call; rethrows anything else, which is a bug or an abort. */
export function errnoOf(error: unknown): string {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string' && 'syscall' in error) return error.code
  throw error
}
