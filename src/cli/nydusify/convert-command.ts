// The `convert` command line. SPEC: spec-surface.md C.1.

import { formatPlatform, hostPlatform } from '../../format/oci/platform.ts'
import type { Command } from './flags.ts'

export const convertCommand: Command = {
  name: 'convert',
  usage: 'Generate a Nydus image from an OCI image',
  flags: [
    { name: 'source', kind: 'string', required: true, env: ['SOURCE'], usage: 'Source image: [docker://]REFERENCE, oci:DIR[:NAME], oci-archive:FILE[:NAME] or docker-archive:FILE[:NAME]' },
    { name: 'source-archive', kind: 'string', env: ['SOURCE_ARCHIVE'], usage: 'Read the source from this OCI layout tar archive; --source is then its name' },
    { name: 'target', kind: 'string', env: ['TARGET'], usage: 'Target (Nydus) image, in the same forms' },
    { name: 'target-archive', kind: 'string', env: ['TARGET_ARCHIVE'], usage: 'Write the target into this OCI layout tar archive; --target is then its name' },
    { name: 'source-backend-type', kind: 'string', env: ['BACKEND_TYPE'], usage: 'Type of storage backend of the source (from a later version on)' },
    { name: 'source-backend-config', kind: 'string', env: ['BACKEND_CONFIG'], usage: 'Json configuration string for that backend' },
    { name: 'target-suffix', kind: 'string', env: ['TARGET_SUFFIX'], usage: 'The target is the source with this added to its tag; conflicts with --target' },
    { name: 'source-insecure', kind: 'switch', env: ['SOURCE_INSECURE'], usage: 'Skip verifying server certs for HTTPS source registry; plain HTTP if it has no HTTPS' },
    { name: 'target-insecure', kind: 'switch', env: ['TARGET_INSECURE'], usage: 'Skip verifying server certs for HTTPS target registry; plain HTTP if it has no HTTPS' },
    { name: 'backend-type', kind: 'string', env: ['BACKEND_TYPE'], usage: 'Type of storage backend for blobs: oss, s3 (from a later version on)' },
    { name: 'backend-config', kind: 'string', env: ['BACKEND_CONFIG'], usage: 'Json configuration string for that backend' },
    { name: 'backend-config-file', kind: 'string', env: ['BACKEND_CONFIG_FILE'], usage: 'Json configuration file for that backend' },
    { name: 'backend-force-push', kind: 'switch', env: ['BACKEND_FORCE_PUSH'], usage: 'Push blobs to that backend even if it has them' },
    { name: 'build-cache', kind: 'string', env: ['BUILD_CACHE'], usage: 'Reference of a cache image: layers converted before are taken from it, new ones added' },
    { name: 'build-cache-tag', kind: 'string', env: ['BUILD_CACHE_TAG'], usage: 'Use $target:$build-cache-tag as cache image, conflicts with --build-cache' },
    { name: 'build-cache-version', kind: 'string', value: 'v1', env: ['BUILD_CACHE_VERSION'], usage: 'Only records of this version are used' },
    { name: 'build-cache-insecure', kind: 'switch', env: ['BUILD_CACHE_INSECURE'], usage: 'Skip verifying server certs for HTTPS cache registry' },
    { name: 'build-cache-max-records', kind: 'number', value: 200, env: ['BUILD_CACHE_MAX_RECORDS'], usage: 'Maximum cache records in a cache image, 1 to 200' },
    { name: 'chunk-dict', kind: 'string', env: ['CHUNK_DICT'], usage: 'Nydus image whose chunks are not stored again: bootstrap:registry:REFERENCE' },
    { name: 'chunk-dict-insecure', kind: 'switch', env: ['CHUNK_DICT_INSECURE'], usage: 'Skip verifying server certs for HTTPS dict registry' },
    { name: 'merge-platform', aliases: ['multi-platform'], kind: 'switch', env: ['MERGE_PLATFORM'], usage: 'Generate an OCI image index with both OCI and Nydus manifests for the image' },
    { name: 'all-platforms', kind: 'switch', usage: 'Convert images for all platforms, conflicts with --platform' },
    { name: 'platform', kind: 'string', value: formatPlatform(hostPlatform()), usage: "Convert images for specific platforms, for example: 'linux/amd64,linux/arm64'" },
    { name: 'oci-ref', kind: 'switch', env: ['OCI_REF'], usage: 'Convert to OCI-referenced nydus zran image (from a later version on)' },
    { name: 'with-referrer', kind: 'switch', env: ['WITH_REFERRER'], usage: 'Associate a reference to the source image (`subject`, for the referrers API)' },
    { name: 'oci', kind: 'switch', env: ['OCI'], usage: 'Convert Docker media types to OCI media types' },
    { name: 'reverse', kind: 'switch', env: ['REVERSE'], usage: 'Convert from Nydus to OCI (from a later version on)' },
    { name: 'docker-v2-format', kind: 'switch', hidden: true, usage: '[Deprecated] Keep Docker media types: what happens without --oci' },
    { name: 'fs-version', kind: 'string', value: '6', env: ['FS_VERSION'], usage: 'Nydus image format version number: 6 (5 from a later version on)' },
    { name: 'fs-align-chunk', kind: 'switch', env: ['FS_ALIGN_CHUNK'], usage: 'Enable chunk data alignment(4K) for Nydus image; always so with format 6' },
    { name: 'backend-aligned-chunk', kind: 'switch', env: ['BACKEND_ALIGNED_CHUNK'], usage: '[Deprecated] The same' },
    { name: 'prefetch-dir', kind: 'string', env: ['PREFETCH_DIR'], usage: 'Specify an absolute path within the image for prefetch' },
    { name: 'prefetch-patterns', kind: 'switch', env: ['PREFETCH_PATTERNS'], usage: 'Read prefetch list from STDIN, absolute paths line by line' },
    { name: 'compressor', kind: 'string', value: 'zstd', env: ['COMPRESSOR'], usage: 'Algorithm to compress image data blob, possible values: none, lz4_block, zstd' },
    { name: 'fs-chunk-size', aliases: ['chunk-size'], kind: 'string', value: '0x100000', env: ['FS_CHUNK_SIZE'], usage: 'Size of nydus image data chunk, a power of two between 0x1000 and 0x1000000' },
    { name: 'batch-size', kind: 'string', value: '', env: ['BATCH_SIZE'], usage: 'Small chunks are packed together up to this size, a power of two between 0x1000 and 0x1000000, or 0; default 0x100000, with --nydus-image 0' },
    { name: 'work-dir', kind: 'string', value: './tmp', env: ['WORK_DIR'], usage: 'Working directory; finished layers wait in it and are used again after a failure; removed at the end if it did not exist' },
    { name: 'nydus-image', kind: 'string', env: ['NYDUS_IMAGE'], usage: 'Build with this nydus-image binary, one process a layer, instead of in this process' },
    { name: 'output-json', kind: 'string', env: ['OUTPUT_JSON'], usage: "File for sizes, times and the outcome in JSON, for example './output.json'; written on failure, too" },
    { name: 'plain-http', kind: 'switch', env: ['PLAIN_HTTP'], usage: 'Plain HTTP for the target registry, and for a source that has no HTTPS' },
    { name: 'push-retry-count', kind: 'number', value: 3, env: ['PUSH_RETRY_COUNT'], usage: 'Number of retries when pushing to registry fails' },
    { name: 'push-retry-delay', kind: 'string', value: '5s', env: ['PUSH_RETRY_DELAY'], usage: 'Delay between push retries (e.g. 5s, 1m, 1h)' },
  ],
  examples: `
# From one registry to another; credentials come from docker login
nydusify convert --source docker.io/library/node:22 --target registry.example.com/node:22-nydus

# Without a registry at all
skopeo copy docker://docker.io/library/node:22 oci:node:22
nydusify convert --source oci:node:22 --target oci:node:22-nydus

# Beside the original in one index: containerd takes the OCI image, the Nydus snapshotter the Nydus one
nydusify convert --source localhost:5000/app:1 --target localhost:5000/app:1 --merge-platform --plain-http

# Both architectures, with a cache for the next time
nydusify convert --source registry.example.com/app:1 --target-suffix -nydus --platform linux/amd64,linux/arm64 --build-cache-tag cache

# What a program reads first is fetched first
printf '/usr/bin/node\\n/app' | nydusify convert --source oci:app --target oci:app:nydus --prefetch-patterns`,
  notes: `
Batches (--batch-size, on by default here) make images of many small files smaller than their gzip layers. Upstream's nydusd reads them;
upstream's nydus-image cannot unpack or export them: use --batch-size 0 for images that must be.
Exit codes: 0 converted, or copied because it was Nydus already; 1 failure; 20 schema 1; 21 artifact; 22 attestation; 23 Windows; 24 foreign layer;
25 encrypted layer; 26 unknown layer type; 27 no such platform; 130 and 143 ended by a signal. The same stands in --output-json.`,
  run: async (values) => (await import('./convert.ts')).convertFromCommandLine(values),
}
