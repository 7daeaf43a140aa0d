import { describe, expect, it } from 'vitest'
import { chunkEntry } from './chunk-table.ts'
import { ChunkTableView } from './chunk-table-view.ts'

/** A table of rows [blob, chunk index]. */
function tableOf(rows: readonly (readonly [blob: number, index: number])[]): ChunkTableView {
  const bytes = new Uint8Array(rows.length * chunkEntry.size)
  const view = new DataView(bytes.buffer)
  rows.forEach(([blob, index], row) => {
    view.setUint32(row * chunkEntry.size + chunkEntry.offsetOf.blobIndex, blob, true)
    view.setUint32(row * chunkEntry.size + chunkEntry.offsetOf.index, index, true)
  })
  return new ChunkTableView(bytes, 3)
}

describe('rows by blob and chunk', () => {
  it.each([
    ['in any order', [[1, 2], [0, 0], [1, 0], [0, 1], [1, 1]], { 0: [1, 3], 1: [2, 4, 0], 2: [] }],
    ['with indices far apart', [[0, 9_000_000], [2, 5], [0, 3]], { 0: [2, 0], 1: [], 2: [1] }],
    ['a chunk twice: both, in table order', [[0, 1], [0, 0], [0, 1]], { 0: [1, 0, 2], 1: [], 2: [] }],
    ['an impossible blob or index belongs to none', [[7, 0], [0, 2 ** 25], [0, 0]], { 0: [2], 1: [], 2: [] }],
    ['none', [], { 0: [], 1: [], 2: [] }],
  ] as const)('%s', (_, rows, wanted) => {
    const table = tableOf(rows)
    for (const [blob, list] of Object.entries(wanted)) expect([...table.rowsOf(Number(blob))]).toEqual(list)
  })

  it('finds the last row of a chunk, and -1 for what is not there', () => {
    const table = tableOf([[0, 1], [0, 0], [0, 1]])
    expect([table.rowOf(0, 0), table.rowOf(0, 1), table.rowOf(0, 2), table.rowOf(1, 0), table.rowOf(9, 0)]).toEqual([1, 2, -1, -1, -1])
  })
})
