// Digests and checksums choose their instructions at run time. A test machine has the best ones, so the others are built here with the
// processor's answers replaced.

import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { crc32c, digestOf } from './codecs.ts'

const NATIVE = path.resolve(import.meta.dirname, '../../native')
const HEADERS = path.resolve(import.meta.dirname, '../../node_modules/node-api-headers/include')
const directory = mkdtempSync(path.join(tmpdir(), 'nydus-kernels-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

/** Each level and what the processor is made to answer: whether feature `x` is there. */
const LEVELS = [
  { level: 'portable', needs: [], supports: '0' },
  { level: 'SSE4.1', needs: ['sse4_1'], supports: '(strcmp(x, "sse4.1") == 0)' },
  { level: 'SSE4.2 and AVX2', needs: ['sse4_2', 'pclmulqdq', 'avx2'], supports: '(strncmp(x, "avx512", 6) != 0)' },
]

const input = randomBytes(2 << 20)
const lengths = [0, 1, 55, 56, 63, 64, 65, 119, 120, 1023, 1024, 1025, 2048, 2049, 3072, 4097, 5120, 6000, 7168, 8192, 8193, 9216, 15_360, 16_384, 17_000, 65_536, 65_537, 131_073, 1 << 20, 2_000_003]

describe.runIf(process.arch === 'x64')('kernels', () => {
  const flags = readFileSync('/proc/cpuinfo', 'utf8').match(/^flags\s*:(.*)$/m)?.[1]?.split(' ') ?? []

  it.each(LEVELS.filter(({ needs }) => needs.every((flag) => flags.includes(flag))))('of level $level agree with the best', ({ level, supports }) => {
    const program = path.join(directory, level.replace(/\W/g, ''))
    const sources = ['blake3.c', 'sha256.c', 'crc32c.c', 'test/kernels.c'].map((file) => path.join(NATIVE, file))
    execFileSync(process.env['CC'] ?? 'cc', ['-std=gnu11', '-O1', '-I', HEADERS, `-D__builtin_cpu_supports(x)=${supports}`, '-o', program, ...sources])
    const lines = execFileSync(program, lengths.map(String), { input, encoding: 'utf8' }).trimEnd().split('\n')
    expect(lines).toEqual(lengths.map((length) => {
      const bytes = input.subarray(0, length)
      return `${digestOf(bytes, 0).toString('hex')} ${digestOf(bytes, 1).toString('hex')} ${crc32c(bytes)}`
    }))
  })
})
