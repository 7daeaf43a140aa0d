// Parts of the registry and storage layers that users of the package name.

export { type AccessEntry, type Credentials, type LayoutServer, type RegistryOptions, serveLayout, type ServeOptions } from '../registry/index.ts'
export type { BlobBackend, BlobReader, RetryPolicy } from '../storage/index.ts'
