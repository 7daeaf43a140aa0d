// A writable mount of ours, and the kernel's overlayfs over the kernel's EROFS mount of the same image.

import { execFileSync, spawnSync } from 'node:child_process'
import { linkSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { type ErofsMount, mountErofs } from './erofs-mount.ts'
import { Scratch } from './nydusd.ts'

const ROOT = path.resolve(import.meta.dirname, '../..')

/** An image of a random tree in which no file has two names, with `known/file-0` to `known/file-8` (from 10 to 100,000 bytes) and `known/directory` in it. */
export class WritableImage implements Disposable {
  readonly path = mkdtempSync(path.join(tmpdir(), 'nydus-overlay-'))
  readonly bootstrap = path.join(this.path, 'image.boot')
  readonly blobs = path.join(this.path, 'blobs')
  readonly source = path.join(this.path, 'source')

  /** `twins`: also `known/twin-a` and `known/twin-b`, one file. What copies such a file up is not the same everywhere, and its number of names shows it. */
  constructor(seed: number, { twins = false }: { readonly twins?: boolean } = {}) {
    execFileSync('python3', [path.join(ROOT, 'fixtures/tools/random_tree.py'), this.source, String(seed)], { stdio: 'ignore' })
    const inside = (...names: string[]): string => path.join(this.source, 'known', ...names)
    mkdirSync(inside('directory/below'), { recursive: true })
    for (let i = 0; i < 9; i++) writeFileSync(inside(`file-${i}`), Buffer.alloc(Math.round(10 ** (1 + i / 2)), `${i} of seed ${seed}. `))
    for (const name of ['one', 'two', 'three', 'below/four']) writeFileSync(inside('directory', name), name)
    if (twins) writeFileSync(inside('twin-a'), 'twins')
    execFileSync('find', [this.source, '-type', 'f', '-links', '+1', '-execdir', 'sh', '-c', 'cp -a "$1" .copy && mv .copy "$1"', 'sh', '{}', ';'])
    if (twins) linkSync(inside('twin-a'), inside('twin-b'))
    mkdirSync(this.blobs)
    const { status, stderr } = spawnSync(path.join(ROOT, 'bin/nydus-image'), ['create', '-l', 'warn', '-B', this.bootstrap, '-D', this.blobs, this.source], { encoding: 'utf8' })
    if (status !== 0) throw new Error(stderr)
  }

  /** The kernel's own mount of it. */
  mount(): ErofsMount {
    return mountErofs(readFileSync(this.bootstrap), new Map(readdirSync(this.blobs).map((id) => [id, readFileSync(path.join(this.blobs, id))])))
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true })
  }
}

/** Directories of a writable mount of `image`. */
export class WritableScratch extends Scratch {
  readonly upper = path.join(this.path, 'upper')
  readonly work = path.join(this.path, 'work')
  readonly #blobs: string

  /** Without an image the blobs are in its directory `blobs`. */
  constructor(image?: WritableImage) {
    super()
    this.#blobs = image?.blobs ?? path.join(this.path, 'blobs')
    for (const directory of [this.upper, this.work]) mkdirSync(directory)
  }

  /** A configuration of version 2 with the overlay in it. */
  settings(): object {
    return {
      version: 2, id: 'writable', backend: { type: 'localfs', localfs: { dir: this.#blobs } }, cache: { type: 'blobcache', filecache: { work_dir: this.cache } },
      rafs: { mode: 'direct', enable_xattr: true }, overlay: { upper_dir: this.upper, work_dir: this.work },
    }
  }
}

/** The kernel's overlayfs, as it is without options of its own. */
export function mountOverlay({ lower, upper, work, mountpoint, options = '' }: { readonly lower: string; readonly upper: string; readonly work: string; readonly mountpoint: string; readonly options?: string }): Disposable {
  execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', `nodev,nosuid,${options}lowerdir=${lower},upperdir=${upper},workdir=${work}`, mountpoint])
  return { [Symbol.dispose]: () => void execFileSync('umount', ['-l', mountpoint]) }
}
