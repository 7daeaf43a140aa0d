import { closeSync, ftruncateSync, mkdtempSync, openSync, readdirSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ReadyMap, readyMapSize } from './ready-map.ts'
import { openSharedRegion } from './shared-region.ts'

const COUNT = 10
let directory: string
let dataFd: number
beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'shared-region-'))
  dataFd = openSync(path.join(directory, 'data'), 'w+')
})
afterEach(() => {
  closeSync(dataFd)
  rmSync(directory, { recursive: true, force: true })
})
const regions = () => readdirSync(directory).filter((name) => name !== 'data')

/** Opens the region, publishes chunk 1, and says whether it was published before. */
function visit(): { readonly known: boolean; close(): void } {
  const region = openSharedRegion(dataFd, COUNT, 0, { directory })
  const map = ReadyMap.map(region.fd, COUNT, { writable: true })
  const known = map.has(1, 4096, 10)
  map.publish(1, 4096, 10)
  return { known, close() { map.close(); region.close() } }
}

describe('openSharedRegion', () => {
  it('shows each user what the others published, and starts from zeros when all are gone', () => {
    const first = visit()
    const second = visit()
    expect([first.known, second.known]).toEqual([false, true])
    first.close()
    const third = visit()
    expect(third.known).toBe(true)
    second.close()
    third.close()
    expect(regions()).toEqual([])
    const fourth = visit()
    expect(fourth.known).toBe(false)
    fourth.close()
  })

  it('starts from zeros over what a killed process left', () => {
    const first = visit()
    const [name] = regions()
    first.close()
    const left = openSync(path.join(directory, name!), 'w') // as if it had not been taken away
    ftruncateSync(left, readyMapSize(COUNT))
    writeSync(left, Buffer.alloc(readyMapSize(COUNT), 0xff), 0, readyMapSize(COUNT), 0)
    closeSync(left)
    const second = visit()
    expect(second.known).toBe(false)
    second.close()
  })

  it('keeps the regions of two cache files apart', () => {
    const first = visit()
    const other = openSync(path.join(directory, 'data2'), 'w+')
    const region = openSharedRegion(other, COUNT, 0, { directory })
    const map = ReadyMap.map(region.fd, COUNT, { writable: false })
    expect(map.has(1, 4096, 10)).toBe(false)
    map.close()
    region.close()
    closeSync(other)
    first.close()
  })
})
