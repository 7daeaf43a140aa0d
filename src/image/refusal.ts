// What is refused by name: one row per kind, with the exit code that nydusify ends with and the word that --output-json carries.

import { CodedError } from '../core/errors.ts'

/** `exitCode`: of nydusify. `meaning`: the sentence for help and documents. */
export const REFUSALS = {
  'schema-1':        { exitCode: 20, meaning: 'a Docker schema 1 manifest: it has no layer sizes and no config; push the image again with a current client' },
  'artifact':        { exitCode: 21, meaning: 'an OCI artifact: its config is not that of a container image' },
  'attestation':     { exitCode: 22, meaning: 'an attestation (provenance, SBOM), not an image' },
  'windows':         { exitCode: 23, meaning: 'a Windows image: its layers are no Linux file systems' },
  'foreign-layer':   { exitCode: 24, meaning: 'a foreign or non-distributable layer: its content must not be pushed in another form' },
  'encrypted-layer': { exitCode: 25, meaning: 'an encrypted layer (ocicrypt)' },
  'layer-type':      { exitCode: 26, meaning: 'a layer of an unknown media type' },
  'platform':        { exitCode: 27, meaning: 'the image has no manifest for the platform asked for' },
  'not-here':        { exitCode: 1,  meaning: 'an option or a kind of image that a later version brings' },
} as const satisfies Record<string, { exitCode: number; meaning: string }>

export type RefusalReason = keyof typeof REFUSALS

/** IMAGE_UNSUPPORTED whose context says which row of the table it is. */
export function refusal(reason: RefusalReason, what: string): CodedError {
  return new CodedError('IMAGE_UNSUPPORTED', `${what}: ${REFUSALS[reason].meaning}`, { reason })
}

/** The row that `error` was made from, if any. */
export function refusalOf(error: unknown): RefusalReason | undefined {
  if (!(error instanceof CodedError)) return undefined
  const reason = error.context['reason']
  // SAFETY: an own key of the table.
  return error.code === 'IMAGE_UNSUPPORTED' && typeof reason === 'string' && Object.hasOwn(REFUSALS, reason) ? reason as RefusalReason : undefined
}
