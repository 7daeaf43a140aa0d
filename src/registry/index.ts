// The registry layer: everything other layers may import.

export type { BlobContent, BlobRange, Fetched, ImageSource, ImageTarget, Pushed, PushOptions, RepositoryName } from './types.ts'
export { formatLocation, openSource, openTarget, parseLocation, type Location, type OpenOptions } from './location.ts'
export { copyBlob, type Transfer } from './transfer.ts'
export { digestOf, MAX_MANIFEST_SIZE, readBlob, verified } from './content.ts'
export type { RegistryOptions, RepositoryAddress } from './client/registry-client.ts'
export { createRangeFetcher, type RangeFetcher } from './client/range-fetcher.ts'
export { decodeBasic, findCredentials, type Credentials } from './auth/credentials.ts'
export { Transport } from './http/transport.ts'
export { defaultCertificateDirectories } from './http/tls.ts'
export { manifestTypeOf } from './manifest-type.ts'
export { serveLayout, type AccessEntry, type LayoutServer, type ServeOptions } from './server/serve-layout.ts'
export { sweepTempFiles, TempFile } from './layout/temp-file.ts'
