// The serving layer's door: what cli wires together.

export type { Watched } from './access/accounts.ts'
export type { ProgramVersion } from './api/documents.ts'
export { type ApiDaemon, ApiServer, type ApiOptions } from './http-api.ts'
export { Daemon, type DaemonEnd, type DaemonOptions, type KeptConnection } from './daemon/daemon.ts'
export { type FileSystem, imageFileSystem, type MountedFileSystem, type MountRequest, type OpenMount } from './daemon/file-system.ts'
export type { DaemonStateName } from './daemon/life-cycle.ts'
export type { SavedMountRow } from './daemon/mounts.ts'
export { decodeState, encodeState, readStateFile, type SavedState, STATE_VERSION, writeStateFile } from './daemon/saved-state.ts'
export type { FailoverPolicy } from './daemon/requeue.ts'
export type { Kept } from './daemon/supervisor.ts'
export { WorkerPool } from './worker/pool.ts'
export { mountedDevice } from './mountpoint.ts'
