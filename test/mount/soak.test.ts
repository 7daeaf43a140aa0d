// What a daemon takes of the machine does not grow with what it has done. SOAK_MINUTES makes it longer (scripts/soak.sh).

import { expect, it } from 'vitest'
import { shown, soak } from '../support/soak.ts'

const MINUTES = Number(process.env['SOAK_MINUTES'] ?? 1)
/** What the second half of the time may take more than the first. */
const GROWTH = 1.05

it(`a daemon that mounts, unmounts, reads and meets faults for ${MINUTES} min keeps its memory, descriptors and threads, and shows no wrong byte`, async () => {
  const { halves: [first, second], peak, wrong, ...counts } = await soak({ minutes: MINUTES, log: (line) => void process.stderr.write(`${line}\n`) })
  console.log(`soak: ${shown(first)}, then ${shown(second)}; peak ${shown(peak)}; ${JSON.stringify(counts)}`)
  expect(wrong).toEqual([])
  expect(counts.mounts).toBeGreaterThan(10 * MINUTES)
  expect(counts.reads).toBeGreaterThan(50 * MINUTES)
  expect(counts.faults).toBeGreaterThan(10 * MINUTES)
  for (const key of ['pss', 'descriptors', 'threads'] as const) expect(second[key], key).toBeLessThanOrEqual(first[key] * GROWTH)
}, MINUTES * 60_000 + 120_000)
