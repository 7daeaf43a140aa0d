// The `check` command line. SPEC: spec-surface.md C.1, C.5.

import { formatPlatform, hostPlatform } from '../../format/oci/platform.ts'
import type { Command } from './flags.ts'

export const checkCommand: Command = {
  name: 'check',
  usage: 'Verify nydus image format and content',
  flags: [
    { name: 'source', kind: 'string', env: ['SOURCE'], usage: 'Source OCI image to compare with; without it only the target is checked' },
    { name: 'target', kind: 'string', required: true, env: ['TARGET'], usage: 'Target (Nydus) image: [docker://]REFERENCE, oci:DIR[:NAME], oci-archive:FILE[:NAME]' },
    { name: 'source-insecure', kind: 'switch', env: ['SOURCE_INSECURE'], usage: 'Skip verifying server certs for HTTPS source registry; plain HTTP if it has no HTTPS' },
    { name: 'target-insecure', kind: 'switch', env: ['TARGET_INSECURE'], usage: 'Skip verifying server certs for HTTPS target registry; plain HTTP if it has no HTTPS' },
    { name: 'source-backend-type', kind: 'string', env: ['BACKEND_TYPE'], usage: 'Type of storage backend of the source (from a later version on)' },
    { name: 'source-backend-config', kind: 'string', env: ['BACKEND_CONFIG'], usage: 'Json configuration string for that backend' },
    { name: 'source-backend-config-file', kind: 'string', env: ['BACKEND_CONFIG_FILE'], usage: 'Json configuration file for that backend' },
    { name: 'target-backend-type', kind: 'string', env: ['BACKEND_TYPE'], usage: 'Type of storage backend of the target (from a later version on)' },
    { name: 'target-backend-config', kind: 'string', env: ['BACKEND_CONFIG'], usage: 'Json configuration string for that backend' },
    { name: 'target-backend-config-file', kind: 'string', env: ['BACKEND_CONFIG_FILE'], usage: 'Json configuration file for that backend' },
    { name: 'multi-platform', kind: 'switch', env: ['MULTI_PLATFORM'], usage: 'The target must be an index that has both an OCI and a Nydus manifest' },
    { name: 'platform', kind: 'string', value: formatPlatform(hostPlatform()), usage: "Check the image for this platform, for example: 'linux/amd64'" },
    { name: 'work-dir', kind: 'string', value: './output', env: ['WORK_DIR'], usage: 'Working directory; its content is replaced by manifests, configs and bootstraps' },
    { name: 'nydus-image', kind: 'string', value: 'nydus-image', env: ['NYDUS_IMAGE'], usage: 'Accepted; bootstraps are checked in this process' },
    { name: 'nydusd', kind: 'string', value: 'nydusd', env: ['NYDUSD'], usage: 'Path of another nydusd to mount the target with' },
  ],
  examples: `
# Manifest, bootstrap and every file of the mounted image against the layers that it was made of
nydusify check --source localhost:5000/app:1 --target localhost:5000/app:1-nydus --source-insecure --target-insecure

# An image in a directory; without /dev/fuse it is read instead of mounted, and the report says so
nydusify check --source oci:app:1 --target oci:app:1-nydus

# The image alone
nydusify check --target localhost:5000/app:1-nydus --target-insecure`,
  notes: `
Each difference is one line on stderr. Exit code 1 when there is any.`,
  run: async (values) => (await import('./check.ts')).checkFromCommandLine(values),
}
