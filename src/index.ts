// The package's exports. Importing them installs nothing, prints nothing and loads the native addon only when something needs it.

export { check, type CheckFinding, type CheckReport, type CheckRequest } from './library/check.ts'
export { convert, type ConvertRequest, type ConvertResult } from './library/convert.ts'
export { CodedError, ERROR_TABLE, type ErrorCode, hasCode, isCoded } from './library/errors.ts'
export { type FileStat, ImageFiles, type ImagePath, type ReadFileOptions } from './library/image-files.ts'
export { mount, type Mount, type MountRequest } from './library/mount.ts'
export { openImage, type OpenImageRequest } from './library/open-image.ts'
export type { ProgressEvent, ProgressListener } from './library/progress.ts'
export { type AccessEntry, type BlobBackend, type BlobReader, type Credentials, type LayoutServer, type RegistryOptions, type RetryPolicy, serveLayout, type ServeOptions } from './library/registry.ts'
