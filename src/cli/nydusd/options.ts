// The command line of nydusd. Parsed by hand from one table: commander costs 20 ms of a start that is measured in milliseconds
// (alternating runs, `node -e 0` against `import('commander')`), and a daemon is started once for each container.
// SPEC: spec-surface.md B.1. COMPAT: words and exit codes of usage errors are clap's.

/** `value`: placeholder of an option that takes one. */
export interface OptionRow {
  readonly name: string
  readonly short?: string
  readonly value?: string
  readonly alias?: string
  readonly help: string
  readonly group: 'Daemon' | 'File system' | 'Logging'
  readonly fallback?: string
}

export const OPTIONS = [
  { name: 'mountpoint', short: 'M', value: 'mountpoint', group: 'File system', help: 'Existing directory to mount on' },
  { name: 'bootstrap', short: 'B', value: 'bootstrap', group: 'File system', help: 'Bootstrap of the image; without it an empty directory is mounted' },
  { name: 'config', short: 'C', value: 'config', group: 'File system', help: 'Configuration file (JSON): where the blobs are and where to cache them' },
  { name: 'localfs-dir', short: 'D', value: 'localfs-dir', group: 'File system', help: 'Directory with the blobs, also used as cache; instead of --config' },
  { name: 'prefetch-files', value: 'file', group: 'File system', help: 'List of paths to fetch ahead, one a line' },
  { name: 'virtual-mountpoint', short: 'm', value: 'path', group: 'File system', fallback: '/', help: 'Path of the image or directory inside the file system' },
  { name: 'shared-dir', short: 's', value: 'dir', group: 'File system', help: 'Share a directory of the host instead of an image; read-only unless --writable (a machine may always write)' },
  { name: 'sock', short: 'S', value: 'path', group: 'File system', help: 'With virtiofs and uffd: Unix socket that the virtual machine\'s monitor connects to' },
  { name: 'hybrid-mode', group: 'File system', help: 'With virtiofs: images and passed-through directories in one export (always so here)' },
  { name: 'fill', value: 'how', group: 'File system', help: 'With erofs: how data arrives; auto, fileio (devices served by FUSE) or fanotify (cache files that the kernel asks about) [default: auto]' },
  { name: 'fuse-threads', alias: 'thread-num', value: 'count', group: 'File system', fallback: '4', help: 'Threads that serve requests, at most; one until more are needed' },
  { name: 'writable', group: 'File system', help: 'Mount read-write: what is shared by --shared-dir can be changed, and an image whose configuration has an overlay' },
  { name: 'failover-policy', value: 'policy', group: 'File system', fallback: 'resend', help: 'none, resend or flush: what becomes of requests under way after a takeover' },
  { name: 'apisock', short: 'A', value: 'path', group: 'Daemon', help: 'Unix socket of the HTTP API' },
  { name: 'id', value: 'id', group: 'Daemon', help: 'Name of the daemon, with --supervisor' },
  { name: 'supervisor', value: 'path', group: 'Daemon', help: 'Unix socket of the process that keeps the daemon\'s state' },
  { name: 'upgrade', group: 'Daemon', help: 'Start in INIT and mount nothing' },
  { name: 'self-heal', group: 'Daemon', help: 'Keep the mount while the server behind it dies and is replaced' },
  { name: 'server', value: 'socket', group: 'Daemon', help: 'The same, with one server for all daemons that name this socket' },
  { name: 'run-dir', value: 'dir', group: 'Daemon', fallback: '/run/nydusd', help: 'Devices and journals of kernel EROFS mounts, the key that hides credentials in saved states' },
  { name: 'rlimit-nofile', value: 'count', group: 'Daemon', fallback: '1000000', help: 'Limit of open files, 0 to leave it; as far as allowed' },
  { name: 'backend-source', value: 'url', group: 'Daemon', help: 'Accepted and ignored' },
  { name: 'log-level', short: 'l', value: 'level', group: 'Logging', fallback: 'info', help: 'trace, debug, info, warn or error' },
  { name: 'log-file', short: 'L', value: 'path', group: 'Logging', help: 'Log file (its directory is made); text on a terminal, JSON lines elsewhere' },
  { name: 'log-rotation-size', value: 'MiB', group: 'Logging', fallback: '0', help: 'Rotate the log file at this size, 0 for never' },
] as const satisfies readonly OptionRow[]

export type OptionName = (typeof OPTIONS)[number]['name']

/** What the command line asked for. */
export type Command =
  | { readonly kind: 'help' | 'version' }
  /** `fuse` with a value of `fill`: by the kernel's EROFS driver (`nydusd erofs`). */
  | { readonly kind: Service; readonly values: ReadonlyMap<OptionName, string> }
  /** A subcommand of upstream's that this version does not have. */
  | { readonly kind: 'later'; readonly name: string }
  | { readonly kind: 'usage'; readonly message: string }

/** Upstream's other services, and what each will be. */
const LATER: ReadonlyMap<string, string> = new Map([
  ['singleton', 'kernel EROFS over fscache'], ['nbd', 'network block device'],
])
/** Subcommands that serve. */
const SERVICES = ['fuse', 'virtiofs', 'uffd'] as const
type Service = (typeof SERVICES)[number]
/** `erofs` is `fuse` with another way to the kernel. */
const isService = (word: string): word is Service | 'erofs' => word === 'erofs' || SERVICES.some((service) => service === word)
const CHOICES: ReadonlyMap<string, readonly string[]> = new Map([
  ['log-level', ['trace', 'debug', 'info', 'warn', 'error']],
  ['failover-policy', ['none', 'resend', 'flush']], ['fill', ['auto', 'fanotify', 'fileio']],
])
/** [option, smallest, largest] */
const NUMBERS: readonly (readonly [OptionName, number, number])[] = [
  ['fuse-threads', 1, 1024], ['rlimit-nofile', 0, Number.MAX_SAFE_INTEGER], ['log-rotation-size', 0, 2 ** 20],
]
/** LIMIT: a holder has the machine's connection, and gives it to nobody but its own servers; what a machine knows of a shared directory is not handed on to another daemon. */
const DEVICE_CONFLICTS: readonly (readonly [OptionName, OptionName])[] = [
  ['supervisor', 'self-heal'], ['supervisor', 'server'], ['shared-dir', 'supervisor'],
]
const CONFLICTS: readonly (readonly [OptionName, OptionName])[] = [['localfs-dir', 'config'], ['bootstrap', 'shared-dir']]
const REQUIRES: readonly (readonly [OptionName, OptionName])[] = [['id', 'supervisor'], ['supervisor', 'id'], ['prefetch-files', 'bootstrap']]

/** Never throws: what is wrong comes back as `usage`. */
export function parseArguments(argv: readonly string[]): Command {
  const values = new Map<OptionName, string>()
  let subcommand: Service | 'erofs' | undefined
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i]!
    if (word === '-h' || word === '--help' || (word === 'help' && subcommand === undefined)) return { kind: 'help' }
    if (word === '-V' || word === '--version') return { kind: 'version' }
    if (!word.startsWith('-')) {
      if (subcommand !== undefined || (!isService(word) && !LATER.has(word))) return { kind: 'usage', message: `unexpected argument '${word}' found` }
      if (!isService(word)) return { kind: 'later', name: word }
      subcommand = word
      continue
    }
    const split = splitWord(word)
    const row = split && rowOf(split.key)
    if (!row) return { kind: 'usage', message: `unexpected argument '${word.split('=')[0]}' found` }
    if (values.has(row.name)) return { kind: 'usage', message: `the argument '${shown(row)}' cannot be used multiple times` }
    const takesValue = 'value' in row
    const value = takesValue ? split.value ?? argv[++i] : ''
    if (value === undefined) return { kind: 'usage', message: `a value is required for '${shown(row)}' but none was supplied` }
    if (!takesValue && split.value !== undefined) return { kind: 'usage', message: `unexpected value '${split.value}' for '${shown(row)}' found; no more were expected` }
    values.set(row.name, value)
  }
  // COMPAT: an older Kata leaves the word `virtiofs` out
  const service = subcommand === 'erofs' ? 'fuse' : subcommand ?? (values.has('sock') ? 'virtiofs' : 'fuse')
  const wrong = complaint(values, service) ?? erofsComplaint(values, subcommand)
  if (wrong !== undefined) return { kind: 'usage', message: wrong }
  for (const row of OPTIONS) if ('fallback' in row && !values.has(row.name)) values.set(row.name, row.fallback)
  if (subcommand === 'erofs' && !values.has('fill')) values.set('fill', 'auto')
  return { kind: service, values }
}

function erofsComplaint(values: ReadonlyMap<OptionName, string>, subcommand: string | undefined): string | undefined {
  if (subcommand !== 'erofs') return values.has('fill') ? "unexpected argument '--fill' found: it belongs to 'nydusd erofs'" : undefined
  if (!values.has('bootstrap')) return `the following required arguments were not provided:\n  ${shownName('bootstrap')}`
  const foreign = (['supervisor', 'upgrade', 'self-heal', 'server', 'shared-dir', 'writable'] as const).find((name) => values.has(name))
  return foreign === undefined ? undefined : `the argument '${shownName(foreign)}' cannot be used with 'erofs'`
}

function splitWord(word: string): { key: string; value?: string } | undefined {
  if (word.startsWith('--')) {
    const at = word.indexOf('=')
    return at < 0 ? { key: word } : { key: word.slice(0, at), value: word.slice(at + 1) }
  }
  if (word.length < 2) return undefined
  return word.length === 2 ? { key: word } : { key: word.slice(0, 2), value: word.slice(word[2] === '=' ? 3 : 2) }
}

function rowOf(key: string): (typeof OPTIONS)[number] | undefined {
  return OPTIONS.find((row) => key === `--${row.name}` || ('short' in row && key === `-${row.short}`) || ('alias' in row && key === `--${row.alias}`))
}

function shown(row: OptionRow): string {
  return row.value === undefined ? `--${row.name}` : `--${row.name} <${row.value}>`
}

function shownName(name: OptionName): string {
  return shown(OPTIONS.find((row) => row.name === name)!)
}

/** What makes no sense with the other service. */
const FOREIGN: Readonly<Record<Service, readonly OptionName[]>> = {
  fuse: ['sock', 'hybrid-mode'], virtiofs: ['mountpoint', 'writable', 'failover-policy'],
  uffd: ['mountpoint', 'writable', 'upgrade', 'supervisor', 'failover-policy', 'self-heal', 'server', 'shared-dir', 'hybrid-mode'],
}

function complaint(values: ReadonlyMap<OptionName, string>, service: Service): string | undefined {
  const foreign = FOREIGN[service].find((name) => values.has(name))
  if (foreign !== undefined) return `the argument '${shownName(foreign)}' cannot be used with '${service}'`
  for (const [a, b] of service === 'virtiofs' ? [...CONFLICTS, ...DEVICE_CONFLICTS] : CONFLICTS) if (values.has(a) && values.has(b)) return `the argument '${shownName(a)}' cannot be used with '${shownName(b)}'`
  const missing = REQUIRES.filter(([a, b]) => values.has(a) && !values.has(b)).map(([, b]) => b)
  const place = service === 'fuse' ? 'mountpoint' : 'sock'
  if (!values.has(place)) missing.unshift(place)
  if (service === 'uffd' && !values.has('bootstrap')) missing.push('bootstrap')
  if (missing.length > 0) return `the following required arguments were not provided:\n${missing.map((name) => `  ${shownName(name)}`).join('\n')}`
  for (const [name, allowed] of CHOICES) {
    const value = [...values].find(([key]) => key === name)?.[1]
    if (value !== undefined && !allowed.includes(value)) return `invalid value '${value}' for '--${name}'\n  [possible values: ${allowed.join(', ')}]`
  }
  for (const [name, least, most] of NUMBERS) {
    const value = values.get(name)
    if (value !== undefined && !(/^\d+$/.test(value) && Number(value) >= least && Number(value) <= most)) {
      return `invalid value '${value}' for '${shownName(name)}': ${value} is not in ${least}..=${most}`
    }
  }
  return undefined
}

/** After a usage error, as clap prints it. */
export const USAGE = 'Usage: nydusd [fuse|erofs] [OPTIONS] --mountpoint <mountpoint>\n       nydusd virtiofs [OPTIONS] --sock <path>\n       nydusd uffd [OPTIONS] --sock <path> --bootstrap <bootstrap>'

/** `nydusd --help`. */
export function helpText(): string {
  const rows = OPTIONS.map((row: OptionRow) => ({ group: row.group, left: `  ${row.short ? `-${row.short}, ` : '    '}${shown(row)}`, help: row.help + (row.fallback ? ` [default: ${row.fallback}]` : '') }))
  const width = Math.max(...rows.map(({ left }) => left.length)) + 2
  const section = (group: string): string => [`${group}:`, ...rows.filter((row) => row.group === group).map(({ left, help }) => left.padEnd(width) + help)].join('\n')
  return `Serve a Nydus image: files appear at once, their data is fetched when it is read, verified and cached.

${USAGE}

Subcommands:
  fuse       Serve through FUSE (this is what happens without a subcommand)
  erofs      Let the kernel's own EROFS driver show the image: metadata and cached data never enter user space
  virtiofs   Serve a virtual machine: a vhost-user-fs device on a socket
  uffd       Serve a virtual machine's page faults: the image as a disk in its memory
${[...LATER].map(([name, what]) => `  ${name.padEnd(11)}${what} (not in this version)`).join('\n')}

${section('File system')}

${section('Daemon')}

${section('Logging')}
  -h, --help     Print help
  -V, --version  Print version

The API socket appears when the image is mounted and served. SIGTERM and SIGINT unmount and end the daemon; so does an umount from outside.
IMAGE_PULL_AUTH (base64 of user:password) replaces the credentials in the configuration.

Examples:
  An image whose blobs are files:
    nydusd --bootstrap image.boot --localfs-dir ./blobs --mountpoint /mnt
  Lazily from a registry, cached in /var/cache/nydus:
    cat > config.json <<'END'
    {"version": 2,
     "backend": {"type": "registry", "registry": {"host": "registry.example.com", "repo": "library/app"}},
     "cache": {"type": "blobcache", "filecache": {"work_dir": "/var/cache/nydus"}}}
    END
    nydusd --bootstrap image.boot --config config.json --mountpoint /mnt --apisock /run/nydusd.sock
    curl --unix-socket /run/nydusd.sock http://localhost/api/v1/daemon
`
}
