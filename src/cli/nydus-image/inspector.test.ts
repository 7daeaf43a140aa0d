import { readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { BootstrapView } from '../../format/rafs-v6/bootstrap-view.ts'
import { Inspector } from './inspector.ts'
import { Statistics } from './statistics.ts'

const VECTORS = path.resolve(import.meta.dirname, '../../../fixtures/vectors')
const IMAGES = { small: 'v6-small-zstd', merged: 'merge-all-lists', prefetch: 'v6-prefetch-fs' }
const open = (image: string) => BootstrapView.open(readFileSync(path.join(VECTORS, image, 'image.boot')))

/** What request mode prints. */
function requested(view: BootstrapView, request: string): string {
  const { text, json } = new Inspector(view, { requestMode: true }).execute(request)
  return text + JSON.stringify(json)
}

describe('inspect in request mode', () => {
  for (const [name, image] of Object.entries(IMAGES)) {
    for (const request of ['blobs', 'prefetch', 'stats', 'ls', 'icheck 1', 'chunk 0']) {
      it(`answers '${request}' on ${image} with upstream's bytes`, () => {
        expect(requested(open(image), request)).toBe(readFileSync(path.join(VECTORS, 'inspect', `${name}-${request.replace(' ', '-')}.txt`), 'utf8'))
      })
    }
  }

  it('tolerates the blank that the snapshotter puts before a request', () => {
    expect(requested(open('v6-small-zstd'), ' blobs')).toContain('"blob_id":"091a39e306c4990f450f92c72e0e88fc2b3a91a547f3bc9243efad204c6fae32"')
  })

  it('says what it does not know', () => {
    expect(new Inspector(open('v6-small-zstd'), { requestMode: true }).execute('bogus')).toMatchObject({ unknown: true })
    expect(new Inspector(open('v6-small-zstd'), { requestMode: true }).execute('chunk x')).toMatchObject({ unknown: true })
    expect(new Inspector(open('v6-small-zstd'), { requestMode: true }).execute('stat no/such').text).toBe('no/such is not found\n')
  })
})

describe('inspect at the prompt', () => {
  it('walks into directories and back, also by absolute and nested paths', () => {
    const inspector = new Inspector(open('v6-small-zstd'), { requestMode: false })
    const root = inspector.execute('ls').text
    inspector.execute('cd usr')
    const usr = inspector.execute('ls').text
    expect(usr).not.toBe(root)
    inspector.execute('cd ..')
    expect(inspector.execute('ls').text).toBe(root)
    inspector.execute('cd /usr/../usr')
    expect(inspector.execute('ls').text).toBe(usr)
    expect(inspector.execute('cd nowhere').text).toBe('nowhere is not found\n')
    expect(inspector.execute('cd /lib').text).toContain('is not a directory')
    expect(inspector.execute('ls').text).toBe(usr)
  })
})

describe('stat', () => {
  const expected = (name: string) => JSON.parse(readFileSync(path.join(VECTORS, 'inspect', name), 'utf8')) as unknown

  for (const [name, image] of [['rich', 'v6-rich-zstd'], ['merged', 'merge-all-lists'], ['batch', 'v6-batch-1m']] as const) {
    it(`counts ${image} as upstream does`, () => {
      const statistics = new Statistics()
      statistics.addBase(open(image))
      expect(statistics.report()).toEqual(expected(`stat-${name}.json`))
    })
  }

  it('tells what a second image shares with the first', () => {
    const statistics = new Statistics()
    statistics.addBase(open('v6-rich-zstd'))
    statistics.setTarget(open('chunk-dict'))
    expect(statistics.report()).toEqual(expected('stat-target.json'))
  })
})
