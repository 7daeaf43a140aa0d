// Builders make many short-lived objects and few that last; V8 answers by growing its young generation to 48 MiB that stay mostly empty.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { KiB } from '../core/units.ts'
import { native } from '../native/load.ts'

/**
 * Keeps V8's young generation at its initial size: 25 to 35 MiB less resident memory in a build of 80,000 files, no measurable CPU time
 * (bench/build/create). To be called before anything is built.
 */
export function keepHeapLean(): void {
  setFlagsFromString('--semi-space-growth-factor=1')
}

/** LIMIT: bytecodes that a function runs before it is optimised, six times what V8 has. */
const PATIENCE = 400_000
/** Node whose V8 has the flag; others would complain on stderr. */
const LAST_WITH_FLAG = 20

/**
 * Lets V8 optimise only what stays hot: a container's start is over before optimised code has earned its compilation, which took a quarter of the
 * daemon's CPU time and 20 MiB (bench/serve/cold-start).
 */
export function keepCompilerCalm(): void {
  if (Number(process.versions.node.split('.')[0]) <= LAST_WITH_FLAG) setFlagsFromString(`--interrupt-budget=${PATIENCE}`)
}

/** LIMIT: heaps of malloc: threads allocate little, and what each of their heaps once held it keeps. */
const ARENAS = 2
/** LIMIT: the same where all threads but one compute. 5 % less memory in a build of 80,000 files (bench/build/create). */
export const BUILDER_ARENAS = 1
/** LIMIT: bytes from which a buffer goes back to the kernel when it is freed. */
const MAPPED = 512 * KiB

/** The same for malloc: see native/memory.c. */
export function keepMallocLean(arenas = ARENAS): void {
  native().leanMalloc(arenas, MAPPED)
}

/**
 * Frees what is garbage now, before something large begins: V8 does not feel buffers outside its heap, of which a packed layer leaves many.
 * 20 ms of a conversion, for 20 to 50 MiB of its peak (bench/image/convert).
 */
export function collectGarbage(): void {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
}
