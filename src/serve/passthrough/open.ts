// A shared directory for the thread that serves it, with the records that let another server continue.

import { existsSync } from 'node:fs'
import { Journal } from '../journal.ts'
import { PassthroughFileSystem, type PassthroughOptions } from './passthrough-file-system.ts'

/** Files of the record at `record`. */
export const recordFiles = (record: string): { readonly client: string; readonly journal: string } => ({ client: `${record}.client`, journal: `${record}.journal` })

/** Opens it; what a server before this one has recorded is continued where there is a record of it. Throws when the root cannot be used. */
export function openPassthrough(options: PassthroughOptions): { readonly live: PassthroughFileSystem; readonly journal: Journal | undefined } {
  const { record } = options
  if (record === undefined) return { live: new PassthroughFileSystem(options), journal: undefined }
  const { client, journal } = recordFiles(record)
  const resume = options.resume === true && existsSync(client) && existsSync(journal)
  return { live: new PassthroughFileSystem({ ...options, record: client, resume }), journal: new Journal(journal, { resume }) }
}
