// What a daemon and whoever starts it for himself agree on.

/** Environment variable of nydusd: the number of an inherited descriptor whose other end its owner holds; when that closes, the daemon ends as by SIGTERM. */
export const OWNER_VARIABLE = 'NYDUSD_OWNER_FD'
