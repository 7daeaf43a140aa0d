// The `nydus-image` command line. SPEC: spec-surface.md A.
// Each subcommand's file is loaded when it runs, so that `--version` and `-h` start quickly.

import { type Command, Option } from 'commander'
import { CodedError, hasCode } from '../../core/errors.ts'
import { EXIT, runProgram, usageCommand, withLogOptions } from '../command-line.ts'
import { Interrupted } from '../signals.ts'
import { versionBlock } from '../version.ts'

const CONVERSION_TYPES = ['directory', 'dir-rafs', 'estargz-rafs', 'estargz-ref', 'estargztoc-ref', 'tar-rafs', 'tar-tarfs', 'targz-rafs', 'targz-ref', 'stargz_index'] as const

/** Runs `nydus-image` with `argv` (without node and script); resolves with the exit code: 1 failure, 2 usage or inconsistent layers. */
export async function nydusImage(argv: readonly string[]): Promise<number> {
  const program = nydusImageProgram()
  if (argv.length === 0) {
    // COMPAT: without a subcommand upstream prints its usage to stdout and exits 0.
    process.stdout.write(program.helpInformation())
    return EXIT.ok
  }
  return await runProgram(program, argv, (error) => (error instanceof Interrupted ? error.exitCode : hasCode(error, 'BUILD_INCONSISTENT') ? EXIT.usage : EXIT.failed))
}

function nydusImageProgram(): Command {
  const program = withLogOptions(usageCommand('nydus-image'))
    .description('Build, analyze, inspect or validate RAFS filesystems/Nydus accelerated container images')
    .version(versionBlock(), '-V, --version', 'Print version')
    .addHelpText('after', `
Examples:
  nydus-image create --blob-dir blobs --bootstrap image.boot /path/to/rootfs
  gunzip -c layer.tar.gz | nydus-image create -t tar-rafs -D blobs -B layer.boot /dev/stdin
  nydus-image merge -B image.boot layer1.boot layer2.boot
  nydus-image check image.boot
  nydus-image inspect image.boot -R 'stat etc/passwd'
  nydus-image unpack -B image.boot -D blobs --output rootfs.tar`)
  for (const command of [create(), merge(), check(), inspect(), stat(), unpack(), exportCommand()]) program.addCommand(withLogOptions(command))
  for (const command of laterCommands()) program.addCommand(withLogOptions(command))
  return program
}

function create(): Command {
  return usageCommand('create')
    .description('Create RAFS filesystems from directories, tar files or OCI images')
    .argument('<SOURCE>', 'source from which to build the RAFS filesystem: a directory, or a tar file, FIFO or /dev/stdin')
    .addOption(new Option('-t, --type <type>', 'Conversion type').choices(CONVERSION_TYPES).default('dir-rafs'))
    .addOption(new Option('--source-type <type>').choices(CONVERSION_TYPES).hideHelp())
    .option('-B, --bootstrap <bootstrap>', 'File path to save the generated RAFS metadata blob')
    .option('-D, --blob-dir <blob-dir>', 'Directory path to save generated RAFS metadata and data blobs')
    .option('-b, --blob <blob>', 'File path to save the generated RAFS data blob (may be a FIFO)')
    .option('--external-blob <external-blob>', 'File path to save the generated RAFS external blob (from a later version on)')
    .option('--blob-inline-meta', 'Inline RAFS metadata and blob metadata into the data blob')
    .addOption(new Option('--inline-bootstrap').hideHelp())
    .option('--blob-id <blob-id>', 'OSS object id for the generated RAFS data blob')
    .option('--blob-data-size <blob-data-size>', `Set data blob size for 'estargztoc-ref' conversion`)
    .addOption(new Option('--blob-offset <blob-offset>').default('0').hideHelp())
    .option('--chunk-size <chunk-size>', 'Set the size of data chunks, must be power of two and between 0x1000-0x1000000 (default: 0x100000)')
    .option('--batch-size <batch-size>', 'Set the batch size to merge small chunks, must be power of two, between 0x1000-0x1000000 or be zero. '
      + 'Smaller images; upstream\'s unpack and export cannot read them', '0')
    .addOption(new Option('--compressor <compressor>', 'Algorithm to compress data chunks').choices(['none', 'lz4_block', 'zstd']).default('zstd'))
    .addOption(new Option('--digester <digester>', 'Algorithm to digest data chunks').choices(['blake3', 'sha256']).default('blake3'))
    .option('-C, --config <config>', 'Configuration file for storage backend, cache and RAFS FUSE filesystem')
    .addOption(new Option('-v, --fs-version <fs-version>', 'Set RAFS format version number (5 from a later version on)').choices(['5', '6']).default('6'))
    .option('--features <features>', 'Enable features: blob-toc')
    .option('--chunk-dict <chunk-dict>', 'File path of chunk dictionary for data deduplication: [bootstrap=]PATH')
    .option('--parent-bootstrap <parent-bootstrap>', 'File path of the parent/referenced RAFS metadata blob')
    .option('--aligned-chunk', 'Align uncompressed data chunks to 4K; always so in RAFS V6')
    .option('--repeatable', 'Generate reproducible RAFS metadata: owners are not stored')
    .addOption(new Option('--disable-check').hideHelp())
    .addOption(new Option('--whiteout-spec <whiteout-spec>', 'Set the type of whiteout specification').choices(['oci', 'overlayfs', 'none']).default('oci'))
    .addOption(prefetchPolicy())
    .option('-J, --output-json <output-json>', 'File path to save operation result in JSON format')
    .option('-E, --encrypt', 'Encrypt the generated RAFS metadata and data blobs (from a later version on)')
    .option('--blob-cache-dir <blob-cache-dir>', 'Directory path to generate blob cache files ($id.blob.meta and $id.blob.data)')
    .option('--attributes <attributes>', 'Path of a .nydusattributes file (from a later version on)')
    .addHelpText('after', `
Examples:
  nydus-image create -D blobs -B image.boot /path/to/rootfs
  nydus-image create -t tar-rafs --blob-inline-meta --features blob-toc --blob layer.blob layer.tar.gz
  printf '/usr/bin\\n/etc' | nydus-image create --prefetch-policy fs -D blobs -B image.boot rootfs`)
    .action(async (source: string, _options, command: Command) => (await import('./create.ts')).create(source, command))
}

function merge(): Command {
  return usageCommand('merge')
    .description('Merge multiple bootstraps into a overlaid bootstrap')
    .argument('<SOURCE...>', 'bootstrap paths, lowest layer first')
    .option('--parent-bootstrap <parent-bootstrap>', 'File path of the parent/referenced RAFS metadata blob')
    .option('-B, --bootstrap <bootstrap>', 'Output path of nydus overlaid bootstrap')
    .option('-D, --blob-dir <blob-dir>', 'Directory path to save generated RAFS metadata and data blobs')
    .option('--chunk-dict <chunk-dict>', 'File path of chunk dictionary for data deduplication: [bootstrap=]PATH')
    .addOption(prefetchPolicy())
    .option('-J, --output-json <output-json>', 'File path to save operation result in JSON format')
    .option('--blob-digests <blob-digests>', 'RAFS blob digest list separated by comma')
    .option('--original-blob-ids <original-blob-ids>', 'original blob id list separated by comma, it may usually be a sha256 hex string')
    .option('--blob-sizes <blob-sizes>', 'RAFS blob size list separated by comma')
    .option('--blob-toc-digests <blob-toc-digests>', 'RAFS blob toc digest list separated by comma')
    .option('--blob-toc-sizes <blob-toc-sizes>', 'RAFS blob toc size list separated by comma')
    .option('-C, --config <config>', 'Configuration file for storage backend, cache and RAFS FUSE filesystem')
    .action(async (sources: string[], _options, command: Command) => (await import('./merge.ts')).merge(sources, command))
}

/** Bootstrap as a positional or, as all tools still pass it, by -B. */
function onBootstrap(name: string, description: string): Command {
  return usageCommand(name)
    .description(description)
    .argument('[BOOTSTRAP]', 'File path of RAFS metadata')
    .option('-B, --bootstrap <bootstrap>', '[Deprecated] File path of RAFS meta blob/bootstrap')
    .option('-D, --blob-dir <blob-dir>', 'Directory for localfs storage backend, hosting data blobs and cache files')
}

function check(): Command {
  return onBootstrap('check', 'Validate RAFS filesystem metadata')
    .option('-C, --config <config>', 'Configuration file for storage backend, cache and RAFS FUSE filesystem')
    .option('-v, --verbose', 'Output message in verbose mode: every inode and chunk')
    .option('-J, --output-json <output-json>', 'File path to save operation result in JSON format')
    .action(async (bootstrap: string | undefined, _options, command: Command) => (await import('./check.ts')).check(bootstrap, command))
}

function inspect(): Command {
  return onBootstrap('inspect', 'Inspect RAFS filesystem metadata in interactive or request mode')
    .option('-C, --config <config>', 'Configuration file for storage backend, cache and RAFS FUSE filesystem')
    .option('-R, --request <request>', 'Inspect RAFS filesystem metadata in request mode: stats, ls, "stat PATH", blobs, prefetch, "chunk OFFSET", "icheck INODE"')
    .action(async (bootstrap: string | undefined, _options, command: Command) => (await import('./inspect.ts')).inspect(bootstrap, command))
}

function stat(): Command {
  return usageCommand('stat')
    .description('Generate statistics information for RAFS filesystems')
    .option('-B, --bootstrap <bootstrap>', 'Generate statistics information for the RAFS filesystem')
    .option('-D, --blob-dir <blob-dir>', 'Generate statistics information for all RAFS filesystems in the directory')
    .option('-T, --target <target>', 'Generate statistics information for the RAFS filesystem after applying chunk deduplication')
    .option('-C, --config <config>', 'Configuration file for storage backend, cache and RAFS FUSE filesystem')
    .addOption(new Option('--digester <digester>', 'Algorithm to digest data chunks').choices(['blake3', 'sha256']).default('blake3'))
    .option('-J, --output-json <output-json>', 'File path to save operation result in JSON format')
    .action(async (_options, command: Command) => (await import('./stat.ts')).stat(command))
}

function unpack(): Command {
  return onBootstrap('unpack', 'Unpack a RAFS filesystem to a tar file')
    .option('-b, --blob <blob>', 'Path to RAFS data blob file')
    .addOption(new Option('--backend-type <backend-type>', 'Type of backend').choices(['oss', 's3', 'registry', 'localdisk', 'http-proxy']))
    .option('--backend-config <backend-config>', 'Config string of backend')
    .option('--backend-config-file <backend-config-file>', 'Config file of backend')
    .option('--output <output>', 'Path for output tar file (may be a FIFO; - for stdout)')
    .action(async (bootstrap: string | undefined, _options, command: Command) => (await import('./unpack.ts')).unpack(bootstrap, command))
}

function exportCommand(): Command {
  return usageCommand('export')
    .description('Export RAFS filesystems as raw block disk images')
    .requiredOption('--block', 'Export RAFS filesystems as raw block disk images')
    .option('-B, --bootstrap <bootstrap>', 'Bootstrap of the RAFS filesystem to be exported')
    .option('-C, --config <config>', 'Configuration file containing a `BlobCacheEntry` object')
    .option('-D, --localfs-dir <localfs-dir>', 'Path to the `localfs` working directory, which also enables the `localfs` storage backend')
    .option('--threads <threads>', 'Number of windows of the disk that are written at once, valid values: [1-1024]', '4')
    .option('-O, --output <output>', 'File path for saving the exported content; default <localfs-dir>/<name of the bootstrap>.disk')
    .option('--verity', 'Generate dm-verity data for block device')
    .action(async (_options, command: Command) => (await import('./export.ts')).exportBlock(command))
}

function prefetchPolicy(): Option {
  return new Option('--prefetch-policy <prefetch-policy>', 'Set data prefetch policy; patterns are read from stdin, one absolute path a line').choices(['fs', 'blob', 'none']).default('none')
}

/** Subcommands of upstream that this version does not have: named in the help, refused by name with exit 1. */
function laterCommands(): Command[] {
  const later = [
    ['compact', '(experimental)Compact specific nydus image, remove unused chunks in blobs, merge small blobs'],
    ['optimize', 'Optimize By Prefetch'],
    ['chunkdict', 'generate chunk dictionary'],
  ] as const
  return later.map(([name, description]) => usageCommand(name).description(`${description} [from a later version on]`)
    .argument('[ARGUMENTS...]').allowUnknownOption()
    .action(() => { throw new CodedError('FORMAT_UNSUPPORTED', `'nydus-image ${name}' is not in this version; upstream's nydus-image reads and writes the same images`, { command: name }) }))
}
