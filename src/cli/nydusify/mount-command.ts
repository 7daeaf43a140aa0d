// The `mount` command line. SPEC: spec-surface.md C.1, C.5.

import { formatPlatform, hostPlatform } from '../../format/oci/platform.ts'
import type { Command } from './flags.ts'

export const mountCommand: Command = {
  name: 'mount',
  aliases: ['view'],
  usage: 'Mount the nydus image as a filesystem',
  flags: [
    { name: 'target', kind: 'string', required: true, env: ['TARGET'], usage: 'Nydus image: [docker://]REFERENCE, oci:DIR[:NAME] or oci-archive:FILE[:NAME]' },
    { name: 'target-insecure', kind: 'switch', env: ['TARGET_INSECURE'], usage: 'Skip verifying server certs for HTTPS target registry; plain HTTP if it has no HTTPS' },
    { name: 'backend-type', kind: 'string', env: ['BACKEND_TYPE'], usage: 'Type of storage backend: oss, s3 (from a later version on), localfs' },
    { name: 'backend-config', kind: 'string', env: ['BACKEND_CONFIG'], usage: 'Json configuration string for that backend' },
    { name: 'backend-config-file', kind: 'string', env: ['BACKEND_CONFIG_FILE'], usage: 'Json configuration file for that backend' },
    { name: 'prefetch', kind: 'switch', env: ['PREFETCH'], usage: 'Enable full image data prefetch' },
    { name: 'mount-path', kind: 'string', value: './image-fs', env: ['MOUNT_PATH'], usage: 'Path to mount the image' },
    { name: 'platform', kind: 'string', value: formatPlatform(hostPlatform()), usage: "Specify platform identifier to choose image manifest, for example: 'linux/amd64'" },
    { name: 'work-dir', kind: 'string', value: './tmp', env: ['WORK_DIR'], usage: 'Working directory: bootstrap, configuration, cache; removed at the end' },
    { name: 'nydusd', kind: 'string', value: 'nydusd', env: ['NYDUSD'], usage: 'Path of another nydusd to mount with' },
  ],
  examples: `
# Mounts, then waits for Ctrl-C and unmounts; files are fetched when they are read
nydusify mount --target localhost:5000/app:1-nydus --target-insecure --mount-path /mnt/app

# From a directory
nydusify mount --target oci:app:1-nydus --mount-path /mnt/app`,
  run: async (values) => (await import('./mount.ts')).mountFromCommandLine(values),
}
