// Commands that upstream does not have: serve, ls, cat.

import { formatPlatform, hostPlatform } from '../../format/oci/platform.ts'
import type { Command, Flag } from './flags.ts'

export const serveCommand: Command = {
  name: 'serve',
  usage: 'Serve an OCI layout directory as a registry (pull with ranges, push)',
  argumentsUsage: 'oci:DIR',
  flags: [
    { name: 'listen', kind: 'string', value: '127.0.0.1:5000', usage: 'Address and port; port 0 takes a free one. There are no users and no TLS: think before leaving the loopback' },
    { name: 'read-only', kind: 'switch', usage: 'Refuse pushes' },
    { name: 'access-log', kind: 'string', usage: 'Append one JSON line a request to this file' },
  ],
  examples: `
# A registry for a test, over what skopeo or nydusify wrote
nydusify serve oci:images --listen 127.0.0.1:5000
nydusify convert --source localhost:5000/app:1 --target localhost:5000/app:nydus --plain-http`,
  run: async (values) => (await import('./serve.ts')).serveFromCommandLine(values),
}

const imageFlags: readonly Flag[] = [
  { name: 'insecure', kind: 'switch', usage: 'Skip verifying server certs; plain HTTP if the registry has no HTTPS' },
  { name: 'platform', kind: 'string', value: formatPlatform(hostPlatform()), usage: 'Which image of an index' },
]

export const listCommand: Command = {
  name: 'ls',
  usage: 'List a directory of a Nydus image, without mounting it',
  argumentsUsage: 'IMAGE [PATH]',
  flags: [...imageFlags, { name: 'long', kind: 'switch', usage: 'Mode, owner, size and time' }, { name: 'recursive', aliases: ['R'], kind: 'switch', usage: 'Everything below, too' }],
  examples: `
nydusify ls --insecure localhost:5000/app:nydus /usr/bin
nydusify ls --long oci:app:nydus /etc`,
  run: async (values) => (await import('./read-image.ts')).listFromCommandLine(values),
}

export const catCommand: Command = {
  name: 'cat',
  usage: 'Print files of a Nydus image, fetching only what they need',
  argumentsUsage: 'IMAGE PATH...',
  flags: imageFlags,
  examples: `
nydusify cat --insecure localhost:5000/app:nydus /etc/os-release`,
  run: async (values) => (await import('./read-image.ts')).catFromCommandLine(values),
}
