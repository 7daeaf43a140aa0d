// Files in memory, by which state travels beside descriptors.

import { closeSync, fstatSync, readSync, writeSync } from 'node:fs'
import { CodedError } from '../core/errors.ts'
import { native } from './load.ts'

/** A descriptor of a file that holds `bytes`. @throws NATIVE_SYSCALL */
export function memoryFile(name: string, bytes: Uint8Array): number {
  const file = native().memfdCreate(name)
  if (file < 0) throw new CodedError('NATIVE_SYSCALL', `no file in memory for the daemon's state: errno ${-file}`, { errno: -file })
  try {
    for (let done = 0; done < bytes.length;) done += writeSync(file, bytes, done)
    return file
  } catch (error) {
    closeSync(file)
    throw error
  }
}

/** What `file` holds; it is closed. */
export function contentOf(file: number): Uint8Array {
  try {
    const bytes = new Uint8Array(fstatSync(file).size)
    for (let done = 0; done < bytes.length;) {
      const size = readSync(file, bytes, done, bytes.length - done, done)
      if (size === 0) break
      done += size
    }
    return bytes
  } finally {
    closeSync(file)
  }
}
