// Commands of upstream that this version does not have: named in the help, refused by name with exit 1.

import { CodedError } from '../../core/errors.ts'
import type { Command } from './flags.ts'

const LATER = [
  ['chunkdict', [], 'Deduplicate chunk for Nydus image (experimental)'],
  ['build', ['pack'], 'Build a Nydus filesystem from a source directory'],
  ['copy', [], 'Copy an image from source to target'],
  ['optimize', [], 'Optimize a source nydus image and push to the target'],
  ['commit', [], 'Create and push a new nydus image from a container\'s changes that use a nydus image'],
] as const

export const laterCommands: readonly Command[] = LATER.map(([name, aliases, usage]) => ({
  name, aliases, usage: `${usage} [from a later version on]`,
  flags: [],
  examples: `nydusify ${name} of upstream reads and writes the same images`,
  anyFlags: true,
  run: async () => { throw new CodedError('FORMAT_UNSUPPORTED', `'nydusify ${name}' is not in this version; upstream's nydusify reads and writes the same images`, { command: name }) },
}))
