// Manifests, indexes and image configs as JSON, the way upstream's Go tools write them.
// SPEC: opencontainers/image-spec v1.1.1 specs-go/v1 {descriptor,manifest,index,config}.go: the order and `omitempty` of every field.

import type { ImageConfig, Index, Manifest } from './descriptor.ts'
import { type Field, goJson, indented, type Shape } from './go-json.ts'

const texts: Shape = { list: 'plain' }
const textMap: Shape = { map: 'plain' }

const platformFields: readonly Field[] = [
  ['architecture', 'plain', 'always'], ['os', 'plain', 'always'], ['os.version', 'plain'], ['os.features', texts], ['variant', 'plain'],
]

const descriptor: Shape = { struct: [
  ['mediaType', 'plain', 'always'], ['digest', 'plain', 'always'], ['size', 'plain', 'always'], ['urls', texts], ['annotations', textMap],
  ['data', 'plain'], ['platform', { struct: platformFields }], ['artifactType', 'plain'],
] }

const manifestShape: Shape = { struct: [
  ['schemaVersion', 'plain', 'always'], ['mediaType', 'plain'], ['artifactType', 'plain'], ['config', descriptor, 'always'],
  ['layers', { list: descriptor }, 'always'], ['subject', descriptor], ['annotations', textMap],
] }

const indexShape: Shape = { struct: [
  ['schemaVersion', 'plain', 'always'], ['mediaType', 'plain'], ['artifactType', 'plain'], ['manifests', { list: descriptor }, 'always'],
  ['subject', descriptor], ['annotations', textMap],
] }

const configShape: Shape = { struct: [
  ['created', 'time'], ['author', 'plain'], ...platformFields,
  ['config', { struct: [
    ['User', 'plain'], ['ExposedPorts', textMap], ['Env', texts], ['Entrypoint', texts], ['Cmd', texts], ['Volumes', textMap], ['WorkingDir', 'plain'],
    ['Labels', textMap], ['StopSignal', 'plain'], ['ArgsEscaped', 'plain'],
  ] }, 'always'],
  ['rootfs', { struct: [['type', 'plain', 'always'], ['diff_ids', texts, 'always']] }, 'always'],
  ['history', { list: { struct: [['created', 'time'], ['created_by', 'plain'], ['author', 'plain'], ['comment', 'plain'], ['empty_layer', 'plain']] } }],
] }

/** The manifest's bytes; their digest is the manifest's. */
export function encodeManifest(manifest: Manifest): Buffer {
  return Buffer.from(goJson(manifest, manifestShape, { foreignKeys: 'drop' }))
}

/** The index's bytes; with `indent` as MarshalIndent would write them. */
export function encodeIndex(index: Index, { indent = false } = {}): Buffer {
  const text = goJson(index, indexShape, { foreignKeys: 'drop' })
  return Buffer.from(indent ? indented(text) : text)
}

/**
 * The config's bytes. Upstream drops what the OCI specification does not name (Docker's Healthcheck, OnBuild, Shell, container_config …);
 * with `foreignKeys: 'keep'` it follows the named keys. For configs without such keys both are upstream's bytes.
 */
export function encodeImageConfig(config: ImageConfig, options: { readonly foreignKeys: 'keep' | 'drop' }): Buffer {
  return Buffer.from(goJson(config, configShape, options))
}
