// `nydus-image check`. SPEC: spec-surface.md A.3; vectors/inspect/merged-check.txt is upstream's verbose output.

import type { Command } from 'commander'
import { byteString, toText } from '../../core/byte-string.ts'
import { CodedError } from '../../core/errors.ts'
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../../format/erofs/inode.ts'
import type { BootstrapView } from '../../format/rafs-v6/bootstrap-view.ts'
import { CHUNK_FLAG } from '../../format/rafs-v6/chunk-table.ts'
import { type TreeNode, validateTree } from '../../format/rafs-v6/validate-tree.ts'
import { featureWords } from './blob-features.ts'
import { outputVersion } from './create.ts'
import { writeWhole } from './io.ts'
import { bootstrapArgument, loadBootstrap } from './load.ts'
import { quoted } from './rust-text.ts'

/** Problems printed before the rest is only counted. */
const SHOWN_PROBLEMS = 20

/** Walks the whole tree; FORMAT_INVALID when it holds an error. Blobs are not read. */
export async function check(positional: string | undefined, command: Command): Promise<void> {
  const flags = command.opts<{ readonly verbose?: boolean; readonly outputJson?: string }>()
  const file = bootstrapArgument(command, positional)
  const start = performance.now()
  const view = await loadBootstrap(file)
  const report = walk(view, flags.verbose === true)
  if (report.errors.length > 0) {
    const [first] = report.errors
    const more = report.errors.slice(1, SHOWN_PROBLEMS).map((text) => `\n  ${text}`).join('')
    const rest = report.errors.length > SHOWN_PROBLEMS ? `\n  ... ${report.errors.length - SHOWN_PROBLEMS} more` : ''
    throw new CodedError('FORMAT_INVALID', `bootstrap ${file} is damaged: ${first}${more}${rest}`, { file, problems: report.errors.length })
  }
  for (const warning of report.warnings.slice(0, SHOWN_PROBLEMS)) process.stderr.write(`warning: ${warning}\n`)

  let text = 'RAFS filesystem metadata is valid, referenced data blobs: \n'
  for (const { index, blobId, entry } of view.blobs) {
    text += `\t ${index}: ${blobId}, compressed size ${entry.compressedSize}, uncompressed size ${entry.uncompressedSize}, chunk size: ${entry.chunkSize}, `
      + `chunk count: ${entry.chunkCount}, features: ${featureWords(entry.features)}\n`
  }
  process.stdout.write(text)
  if (flags.outputJson === undefined) return
  writeWhole(flags.outputJson, JSON.stringify({
    version: outputVersion(), bootstrap: file, blobs: view.blobs.map(({ blobId }) => blobId), external_bootstrap: '', external_blobs: [],
    trace: { consumed_time: { load_tree_from_bootstrap: (performance.now() - start) / 1000 }, registered_events: {} }, fs_version: '6', compressor: view.compressor,
  }))
}

function walk(view: BootstrapView, isVerbose: boolean): { readonly errors: string[]; readonly warnings: string[] } {
  const errors: string[] = []
  const warnings: string[] = []
  let lines = ''
  for (const { node, problem } of validateTree(view)) {
    if (problem !== undefined) {
      (problem.severity === 'error' ? errors : warnings).push(`${toText(problem.path)}: ${problem.message} [${problem.code}]`)
    } else if (isVerbose && errors.length === 0) {
      lines += describe(view, node)
      if (lines.length > 0x1_0000) {
        process.stdout.write(lines)
        lines = ''
      }
    }
  }
  process.stdout.write(lines)
  return { errors, warnings }
}

/** An inode and its chunks, in the words of upstream's `check -v`. `i_symlink_size` is the size's low half: upstream stores it in 16 bits. */
function describe(view: BootstrapView, { path, inode }: TreeNode): string {
  const kind = inode.mode & S_IFMT
  const isFile = kind === S_IFREG
  const word = isFile ? (inode.nlink > 1 ? 'hardlink' : 'file') : kind === S_IFDIR ? 'dir' : kind === S_IFLNK ? 'symlink' : ''
  const name = path === '/' ? '/' : path.slice(path.lastIndexOf('/') + 1)
  const chunks = isFile ? view.chunkCount(inode) : 0
  const children = kind === S_IFDIR ? countEntries(view, inode.nid) : kind === S_IFLNK ? Math.ceil(inode.size / view.chunkSize) : chunks
  const link = kind === S_IFLNK ? `Some(${quoted(byteString(view.readlink(inode)))})` : 'None'
  let text = `inode: ${word} ${quoted(path)}: index 0 ino ${inode.nid} real_ino ${inode.nid} child_index 0 child_count ${children} i_nlink ${inode.nlink} `
    + `i_size ${inode.size} i_blocks ${Math.ceil(inode.size / 512)} i_name_size ${name.length} i_symlink_size ${inode.size % 0x1_0000} `
    + `has_xattr ${inode.xattrCount > 0} link ${link} i_mtime ${inode.mtime} i_mtime_nsec ${inode.mtimeNsec}\n`
  for (let i = 0; i < chunks; i++) {
    const address = view.chunkAt(inode, i)
    const entry = view.chunkEntry(address.blobIndex, address.index)
    if (entry === undefined) continue
    const crc = (entry.flags & CHUNK_FLAG.hasCrc32) !== 0 ? `, crc32 0x${entry.crc32.toString(16)}` : ''
    text += `\t chunk: id ${Buffer.from(entry.digest).toString('hex')}, index ${address.index}, blob_index ${address.blobIndex}, file_offset ${i * view.chunkSize}, `
      + `compressed ${entry.compressedOffset}/${entry.compressedSize}, uncompressed ${address.uncompressedOffset}/${entry.uncompressedSize}${crc}\n`
  }
  return text
}

function countEntries(view: BootstrapView, nid: number): number {
  let count = -2
  for (const _ of view.entries(view.inode(nid))) count++
  return count
}
