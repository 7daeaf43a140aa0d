// Connections to one origin. A file of its own, for scripts/build.mjs: in nydusd's bundle it is undici's pool without the rest of that package, which
// takes longer to load than a local image takes to mount.

export { Pool } from 'undici'
