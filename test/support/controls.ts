// Negative controls: each takes one safeguard out of the sources, and names the test that has to fail then. NYDUS_CONTROL=<name> runs vitest
// without that safeguard; test/property/controls.test.ts does so for all of them.

import path from 'node:path'
import type { Plugin } from 'vite'

export interface Control {
  readonly name: string
  /** What it protects from, for docs/testing.md. */
  readonly safeguard: string
  readonly file: string
  /** Stands once in the file. */
  readonly code: string
  readonly replacement: string
  /** A second guard of the same thing, which goes too. */
  readonly also?: Pick<Control, 'file' | 'code' | 'replacement'>
  readonly test: string
  /** Full name of the test or its beginning. */
  readonly fails: string
  /** Of the test; default unit. */
  readonly project?: 'unit' | 'system'
}

const ROOT = path.resolve(import.meta.dirname, '../..')

export const CONTROLS: readonly Control[] = [
  {
    name: 'digest', safeguard: 'a fetched chunk is compared with its digest before a byte of it is used', file: 'src/storage/fetch/evidence.ts',
    code: 'if (!digestHolds || !crcHolds || (!this.#lenient && digest === undefined && crc === undefined)) wrong.add(index)', replacement: 'void [digestHolds, crcHolds]',
    test: 'src/rafs/image.test.ts', fails: 'a damaged backend gives an error or right bytes, wherever a byte of v6-small-none is flipped',
  },
  {
    name: 'range', safeguard: 'a partial answer is the range that was asked for', file: 'src/registry/client/pull.ts',
    code: 'if (response.status === 206) checkContentRange(response, position)', replacement: 'void checkContentRange',
    test: 'src/registry/client/pull.test.ts', fails: 'a range with another Content-Range than asked for is refused',
  },
  {
    name: 'layer-digest', safeguard: 'a pulled blob hashes to its name', file: 'src/registry/client/pull.ts',
    code: 'if (range.whole) return verified(', replacement: 'if (range.whole) return ((bytes: AsyncIterable<Uint8Array>, _: unknown) => bytes)(',
    test: 'src/registry/client/pull.test.ts', fails: 'a pull refuses a changed body at its end',
  },
  {
    name: 'durable-order', safeguard: 'data is synced before the chunk map says that it is there', file: 'src/storage/cache/blob-cache.ts',
    code: 'await this.#io.sync(this.dataFd) // 4', replacement: '',
    test: 'src/storage/cache/blob-cache.test.ts', fails: 'BlobCache never lets a bit on the disk run ahead of durable data',
  },
  {
    name: 'ready-before-write', safeguard: 'a chunk is ready only after it was written', file: 'src/storage/cache/blob-cache.ts',
    code: 'await this.#io.write(this.dataFd, this.#cipher?.encrypt(run.bytes) ?? run.bytes, run.offset) // 2', replacement: 'this.#publish(run); await this.#io.write(this.dataFd, run.bytes, run.offset)',
    test: 'src/storage/cache/blob-cache.test.ts', fails: 'BlobCache stops storing for a while when the disk is full, and says so',
  },
  {
    name: 'device-ready', safeguard: 'a device shows a range only when every chunk in it is verified', file: 'src/rafs/read-blob.ts',
    code: 'if (!readyMap.has(i, blobMap.offset(i), blobMap.size(i))) return false', replacement: 'void readyMap.has',
    test: 'src/rafs/read-blob.test.ts', fails: 'readBlob tells a worker of a range when all of it is ready, and of nothing before',
  },
  {
    name: 'device-cut', safeguard: 'what a cut cache file has lost is not read as zeros through a device', file: 'src/rafs/read-blob.ts',
    code: 'if (blob.isReady(place) && await blob.cache?.read(part, place.offset + from) && blob.isReady(place)) return', replacement: 'if (await blob.cache?.read(part, place.offset + from)) return',
    test: 'src/rafs/read-blob.test.ts', fails: 'readBlob fetches again what a cut cache file has lost',
  },
  {
    name: 'fill-stored', safeguard: 'the kernel may read a cache file only where the bytes were stored', file: 'src/rafs/read-blob.ts',
    code: 'if (absent === undefined) return', replacement: 'if (places.length > 0) return',
    test: 'src/rafs/read-blob.test.ts', fails: 'fillBlob is an error when the bytes are there and cannot be stored: who reads the file would find a hole',
  },
  {
    name: 'single-flight', safeguard: 'readers of one process fetch a chunk once', file: 'src/storage/image-blob.ts',
    code: 'const running = this.#pending.get(index)', replacement: 'const running: Flight | undefined = undefined; this.#pending.clear()',
    also: { file: 'src/storage/cache/blob-cache.ts', code: '(this.#claimOne(index) ? mine : others).push(index)', replacement: '{ this.#claimOne(index); mine.push(index) }' },
    test: 'src/rafs/image.test.ts', fails: 'readers at once fetch each chunk once',
  },
  {
    name: 'landed-copy', safeguard: 'a reader never holds a view of a buffer that is used again', file: 'src/storage/fetch/flight.ts',
    code: 'copy ??= result instanceof Uint8Array ? new Uint8Array(result) : result', replacement: 'copy ??= result',
    test: 'src/storage/fetch/flight.test.ts', fails: 'Flight copies what readers wait for: the buffer is used again',
  },
  {
    name: 'demand-first', safeguard: 'what nobody waits for pauses while somebody waits', file: 'src/storage/fetch/scheduler.ts',
    code: 'return lane.readers === 0 && (lane.isExpected', replacement: 'return lane.readers < 0 && (lane.isExpected',
    test: 'src/storage/fetch/scheduler.test.ts', fails: 'Scheduler pauses in the middle what nobody waits for, until nobody waits for anything else or somebody does for it',
  },
  {
    name: 'read-deadline', safeguard: 'a read ends in time, whatever its bytes do', file: 'src/serve/miss-desk.ts',
    code: 'const deadline = setTimeout(() => controller.abort(', replacement: 'const deadline = setTimeout(() => void (',
    test: 'src/serve/miss-desk.test.ts', fails: 'MissDesk lets no read hang for ever: after its deadline it is EIO',
  },
  {
    name: 'attempt-deadline', safeguard: 'an answer that does not come, or trickles, is given up', file: 'src/storage/backend/attempt.ts',
    code: 'reject(error)\n      controller.abort(error)', replacement: 'void error',
    test: 'src/storage/backend/reliable.test.ts', fails: 'reliable ends an attempt that takes too long',
  },
  {
    name: 'retries', safeguard: 'what may pass is tried again', file: 'src/storage/backend/reliable.ts',
    code: 'if (isRefusal ? patienceMs === 0 || count >= REFUSAL_RETRIES : !error.retryable) throw error', replacement: 'throw error',
    test: 'src/storage/backend/reliable.test.ts', fails: 'reliable tries again, later each time, when the error may pass',
  },
  {
    name: 'retry-after', safeguard: 'a server is left alone for as long as it asks', file: 'src/storage/backend/reliable.ts',
    code: 'const wait = Math.max(pause, asked)', replacement: 'const wait = pause; quiet.until = Number.NEGATIVE_INFINITY',
    test: 'src/storage/backend/reliable.test.ts', fails: 'reliable leaves a server alone for as long as that asks, for all readers',
  },
  {
    name: 'mirrors', safeguard: 'where a mirror fails the next one is asked, and the registry last', file: 'src/registry/client/mirrored-fetcher.ts',
    code: 'const failure = signal.aborted ? signal.reason : error', replacement: 'throw error',
    test: 'src/registry/client/mirrors.test.ts', fails: 'mirrors of a registry are asked in order, the registry last, and left out for a while after a failure',
  },
  {
    name: 'wrong-mirror', safeguard: 'what a mirror sent wrong is asked for elsewhere', file: 'src/registry/client/mirrored-fetcher.ts',
    code: "exclude(suspect, 'REGISTRY_DIGEST_MISMATCH', 'it sends wrong bytes')", replacement: '',
    test: 'src/registry/client/mirrors.test.ts', fails: 'mirrors of a registry that send wrong bytes are left out too, when somebody says so',
  },
  {
    name: 'hedge', safeguard: 'a request that hangs while a reader waits is made once more', file: 'src/storage/fetch/hedge.ts',
    code: 'if (isWanted()) hedge()', replacement: 'if (isWanted()) void hedge',
    test: 'src/storage/fetch/hedge.test.ts', fails: 'hedgedRead asks once more when nothing comes, takes what is ready first and ends the other',
  },
  {
    name: 'demand-queue', safeguard: 'what somebody waits for goes before what waits for nobody', file: 'src/storage/fetch/scheduler.ts',
    code: 'const chosen = this.#queue.find(({ lane }) => lane.readers > 0) ??', replacement: 'const chosen = this.#queue[0] ??',
    test: 'src/storage/fetch/scheduler.test.ts', fails: 'Scheduler starts what somebody waits for before what nobody does',
  },
  {
    name: 'state-secrets', safeguard: 'the saved state shows no credentials to those who keep it', file: 'src/serve/daemon/saved-state.ts',
    code: 'hidden: secrets.hide(JSON.stringify({ config, changes }))', replacement: 'hidden: JSON.stringify({ config, changes })',
    test: 'src/serve/daemon/saved-state.test.ts', fails: 'saved daemon state hides its configurations, and is refused to whom they were not hidden for',
  },
  {
    name: 'cut-cache', safeguard: 'what a cut cache file has lost is not ready when the file grows again', file: 'src/storage/cache/blob-cache.ts',
    code: 'const lost = this.#ready.revokeBeyond(fstatSync(this.dataFd).size)', replacement: 'const lost: number[] = []',
    test: 'src/storage/cache/blob-cache.test.ts', fails: 'BlobCache takes back everything that a cut file lost before it grows again: what a write leaves behind it are zeros',
  },
  {
    name: 'claims', safeguard: 'processes and mounts that share a cache fetch a chunk once', file: 'src/storage/cache/blob-cache.ts',
    code: '(this.#claimOne(index) ? mine : others).push(index)', replacement: '{ this.#claimOne(index); mine.push(index) }',
    test: 'src/storage/cache/blob-cache.test.ts', fails: 'BlobCache gives a chunk to one caller, and to the next when it is released',
  },
  {
    name: 'lease', safeguard: 'what is in use is not taken away, for a quota or as garbage', file: 'src/storage/cache/lease.ts',
    code: 'if (native().flock(fd, LOCK_EXCLUSIVE_NOW) < 0 || fstatSync(fd).nlink === 0) return false', replacement: '',
    test: 'src/storage/cache/quota.test.ts', fails: 'a cache with a quota takes away nothing that is in use, whoever asks',
  },
  {
    name: 'quota', safeguard: 'nothing is stored beyond the quota', file: 'src/storage/cache/usage.ts',
    code: 'if (this.bytes <= limit && !this.#isCounting()) return true', replacement: 'void limit; return true',
    test: 'src/storage/cache/quota.test.ts', fails: 'a cache with a quota stores up to it and not beyond, and takes nothing away that is in use',
  },
  {
    name: 'chunk-bounds', safeguard: 'chunk information points into the blob\'s data', file: 'src/format/blob/chunk-info-array.ts',
    code: 'if (stored + storedSize > dataSize) return \'is stored behind the end of the data\'', replacement: '',
    test: 'src/format/blob/chunk-info-array.test.ts', fails: 'ChunkInfoArray refuses a chunk behind the data',
  },
  {
    name: 'inode-bounds', safeguard: 'chunk addresses lie inside the image', file: 'src/format/rafs-v6/bootstrap-view.ts',
    code: 'if (end > this.bytes.length) throw new CodedError(', replacement: 'if (end < 0) throw new CodedError(',
    test: 'src/format/rafs-v6/bootstrap-view.test.ts', fails: 'BootstrapView refuses inodes whose attributes, chunk addresses or data cannot be inside the image',
  },
  {
    name: 'region-bounds', safeguard: 'regions of a table of contents lie inside the blob', file: 'src/format/blob/blob-tail.ts',
    code: 'check(offset + compressedSize <= end, \'runs past the table of contents\')', replacement: '',
    test: 'src/format/blob/blob-tail.test.ts', fails: 'readBlobTail refuses a region that runs past the table of contents',
  },
  {
    name: 'cycle', safeguard: 'a directory that is reached twice is refused', file: 'src/format/rafs-v6/validate-tree.ts',
    code: 'if (isAlias && isDirectory) {', replacement: 'if (isAlias && isDirectory && depth > 1000) {',
    test: 'src/format/rafs-v6/validate-tree.test.ts', fails: 'validateTree refuses a directory that is reached twice, without walking it again',
  },
  {
    name: 'name-slash', safeguard: 'names of directory entries have no slash', file: 'src/format/erofs/directory-block.ts',
    code: 'if (byte === SLASH || byte === 0) throw', replacement: 'if (byte === SLASH && byte === 0) throw',
    test: 'src/format/rafs-v6/validate-tree.test.ts', fails: 'validateTree judges dirent-slash as upstream does',
  },
  {
    name: 'blob-id-path', safeguard: 'the id of a blob is no path', file: 'src/format/rafs-v6/blob-records.ts',
    code: '!entry.blobId.includes(\'/\') && entry.blobId !== \'.\' && entry.blobId !== \'..\'', replacement: 'true',
    test: 'src/format/rafs-v6/bootstrap-view.test.ts', fails: 'BootstrapView.open refuses a blob id that would be another path',
  },
  {
    name: 'tar-path', safeguard: 'no entry of an archive leaves it', file: 'src/format/tar/path.ts',
    code: 'throw fail(\'a ".." component leads out of the archive\', \'TAR_UNSAFE_PATH\')', replacement: 'continue',
    test: 'src/format/tar/reader.test.ts', fails: 'ustar refuses the path ".."',
  },
  {
    name: 'tar-metadata', safeguard: 'extended headers are refused by their claimed size', file: 'src/format/tar/reader.ts',
    code: 'if (size > MAX_METADATA) throw', replacement: 'if (size < 0) throw',
    test: 'src/format/tar/reader.test.ts', fails: 'bounded memory refuses an extended header that claims more than 1 MiB before it arrives',
  },
  {
    name: 'tag-last', safeguard: 'the target\'s name is written when everything that it names is there', file: 'src/image/convert.ts',
    code: 'await Promise.all(layers.map(({ pushed }) => pushed))', replacement: '',
    also: { file: 'src/image/limiter.ts', code: 'while (running.size > 0) await Promise.all(running)', replacement: '' },
    test: 'test/unit/tag-last.test.ts', fails: 'a conversion writes the name last',
  },
  {
    name: 'manifest-unnamed', safeguard: 'an image is visible in a layout only when its manifest was published', file: 'src/registry/layout/layout-target.ts',
    code: 'if (final) await this.#store.update', replacement: 'await this.#store.update',
    test: 'src/registry/layout/layout.test.ts', fails: 'a layout shows nothing of an image whose manifest was not published',
  },
  {
    name: 'guest-memory-bounds', safeguard: 'addresses of a guest lie inside the memory that it shares', file: 'src/serve/virtiofs/guest-memory.ts',
    code: "if (!region) throw new CodedError('SERVE_BAD_GUEST', 'a guest names memory that it does not have', { address, length })", replacement: 'if (!region) return',
    test: 'src/serve/virtiofs/virtqueue.test.ts', fails: 'Virtqueue ends with an error for an indirect table outside of the memory',
  },
  {
    name: 'guest-chain-end', safeguard: 'a chain of descriptors ends', file: 'src/serve/virtiofs/virtqueue.ts',
    code: 'if (steps > MAX_QUEUE_SIZE) throw', replacement: 'if (steps > 3 * MAX_QUEUE_SIZE) return { head, request, reply }; if (steps < 0) throw',
    test: 'src/serve/virtiofs/virtqueue.test.ts', fails: 'Virtqueue ends with an error for a chain that leads back to itself',
  },
  {
    name: 'inflight-order', safeguard: 'a request that a killed device had answered is not done again', file: 'src/serve/virtiofs/inflight.ts',
    code: 'if (last < entries) this.#view.setUint8(this.#descriptor(last) + D.inflight, 0)', replacement: 'void last',
    test: 'src/serve/virtiofs/virtqueue.test.ts', fails: 'a queue whose device was killed does not repeat a request that was answered in the moment of the kill',
  },
  {
    name: 'device-record', safeguard: 'a request that a killed device had taken and not answered is done by its successor', file: 'src/serve/virtiofs/device.ts',
    code: 'if (this.#options.recorded) this.#inflight ??=', replacement: 'if (Number(index) > MAX_QUEUES) this.#inflight ??=',
    test: 'src/serve/virtiofs/device.test.ts', fails: 'the successor of a device does again what was taken and not given back, then what has come since, and nothing twice',
  },
  {
    name: 'mounts-version', safeguard: 'a request that was sent after a mount or an umount was done is answered by a worker that knows of it', file: 'src/serve/worker/loop.ts',
    code: 'if (Atomics.load(this.#mountsVersion, 0) !== this.#seenMounts) this.#readMessages()', replacement: 'void this.#seenMounts',
    test: 'src/serve/worker/loop.test.ts', fails: 'the worker loop knows of a mount whose message came before the request, without a wake-up',
  },
  {
    name: 'handle-node', safeguard: 'an open file of a shared directory belongs to requests for its own node', file: 'src/serve/passthrough/open-files.ts',
    code: 'return file?.node.nid === nid ? file : undefined', replacement: 'return void nid, file',
    test: 'src/serve/passthrough/passthrough-file-system.test.ts', fails: 'PassthroughFileSystem gives an open file to requests for its own node only',
  },
  {
    name: 'open-limit', safeguard: 'a client of a shared directory has a limit of open files', file: 'src/serve/passthrough/open-files.ts',
    code: 'return this.#files.size >= this.#max', replacement: 'return this.#max < 0',
    test: 'src/serve/passthrough/passthrough-file-system.test.ts', fails: 'PassthroughFileSystem has a limit of open files, and closes all when the client is gone',
  },
  {
    name: 'repeated-request', safeguard: 'an operation that a dead server had done is not done again', file: 'src/serve/fuse/live-requests.ts',
    code: 'const known = journal.find(this.#lowUnique, this.#highUnique & ~RESENT)', replacement: 'const known = undefined as ReturnType<typeof journal.find>',
    test: 'test/mount/repeated-requests.test.ts', fails: 'a request that is repeated after its server died has the answer of the first, and was done once', project: 'system',
  },
  {
    name: 'done-before', safeguard: 'what a killed server has done in a shared directory is not refused when its repetition is asked for', file: 'src/serve/passthrough/passthrough-file-system.ts',
    code: 'return result === hint && begun !== undefined ? 0 : result', replacement: 'return void [hint, begun], result',
    test: 'src/serve/passthrough/passthrough-file-system.test.ts', fails: 'PassthroughFileSystem takes what a server before it has done for done, when it is asked again, and only then',
  },
  {
    name: 'append-once', safeguard: 'what a killed server has appended is not appended again', file: 'src/serve/passthrough/repeated.ts',
    code: 'if (begun === undefined) return false', replacement: 'if (Number(begun) >= -1) return false; if (begun === undefined) return false',
    test: 'src/serve/passthrough/passthrough-file-system.test.ts', fails: 'PassthroughFileSystem knows again, from its record, what its client knew and had open',
  },
]

/** Takes the safeguard of control `name` out of its file. Throws when there is none, or its code does not stand there once. */
export function withoutSafeguard(name: string): Plugin {
  const control = CONTROLS.find((candidate) => candidate.name === name)
  if (control === undefined) throw new Error(`no control ${name}`)
  return {
    name: 'nydus-control', enforce: 'pre',
    transform(code, id) {
      const change = [control, control.also].find((one) => one !== undefined && path.resolve(id.split('?')[0]!) === path.join(ROOT, one.file))
      if (change === undefined) return undefined
      if (code.split(change.code).length !== 2) throw new Error(`${change.file} has not once: ${change.code}`)
      return code.replace(change.code, () => change.replacement)
    },
  }
}
