// Command lines as Go's flag package and urfave/cli read them: `--name value`, `--name=value`, `-name …`, switches as `--name` or `--name=false`,
// options before positionals, an environment variable behind each flag. Upstream's scripts rely on all of it.

import { CodedError } from '../../core/errors.ts'

/** One row of a command's table. */
export interface Flag {
  readonly name: string
  readonly kind: 'string' | 'switch' | 'number' | 'list'
  readonly usage: string
  readonly aliases?: readonly string[]
  /** Without one: '' , false, 0 or []. */
  readonly value?: string | number | boolean
  /** The first variable that is set wins; the command line wins over all of them. */
  readonly env?: readonly string[]
  readonly required?: boolean
  readonly hidden?: boolean
}

export interface Command {
  readonly name: string
  readonly aliases?: readonly string[]
  readonly usage: string
  /** What stands behind the flags, for the help. */
  readonly argumentsUsage?: string
  readonly flags: readonly Flag[]
  /** How it is used: command lines, with a comment above each. */
  readonly examples: string
  readonly notes?: string
  /** The command line is not read: the command only says that it cannot be run. */
  readonly anyFlags?: boolean
  readonly run: (values: Values) => Promise<number>
}

type Value = string | number | boolean | readonly string[]

/** A command line that was understood. Asking for a flag that the table does not have is a bug. */
export class Values {
  readonly positionals: readonly string[]
  readonly #flags: readonly Flag[]
  readonly #set: ReadonlyMap<string, Value>

  constructor(flags: readonly Flag[], set: ReadonlyMap<string, Value>, positionals: readonly string[]) {
    this.#flags = flags
    this.#set = set
    this.positionals = positionals
  }

  /** Whether it was given, on the command line or by its variable. */
  isSet(name: string): boolean {
    return this.#set.has(name)
  }

  text(name: string): string {
    return String(this.#value(name, 'string') ?? '')
  }

  /** Undefined when it is empty. */
  optional(name: string): string | undefined {
    return this.text(name) || undefined
  }

  isOn(name: string): boolean {
    return this.#value(name, 'switch') === true
  }

  number(name: string): number {
    return Number(this.#value(name, 'number') ?? 0)
  }

  list(name: string): readonly string[] {
    const value = this.#value(name, 'list')
    return Array.isArray(value) ? value : []
  }

  #value(name: string, kind: Flag['kind']): Value | undefined {
    const flag = this.#flags.find((one) => one.name === name)
    if (flag === undefined || flag.kind !== kind) throw new Error(`no ${kind} flag ${name}`)
    return this.#set.get(name) ?? flag.value
  }
}

/** CONFIG_INVALID whose message is the whole truth: shown without a stack and followed by the help. */
export function usageError(message: string): CodedError {
  return new CodedError('CONFIG_INVALID', message, { usage: true })
}

/** Whether an error is one of the command line, which is answered with the help. */
export function isUsageError(error: unknown): boolean {
  return error instanceof CodedError && error.context['usage'] === true
}

/** Parsed flags and what follows them. A first `--help`, `-h`, `--version` or `-v` ends parsing: see `asked`. */
export interface Parsed { readonly values: Values; readonly asked: 'help' | 'version' | undefined }

/** Reads `argv` up to its first positional, then the variables. `more`: positionals may be followed by flags again (we allow it, upstream does not). */
export function parseFlags(flags: readonly Flag[], argv: readonly string[], { env, more }: { env: NodeJS.ProcessEnv; more: boolean }): Parsed {
  const set = new Map<string, Value>()
  const positionals: string[] = []
  const byName = new Map(flags.flatMap((flag) => [flag.name, ...flag.aliases ?? []].map((name) => [name, flag] as const)))
  let asked: Parsed['asked']
  for (let at = 0; at < argv.length; at++) {
    const word = argv[at]!
    if (word === '--') { positionals.push(...argv.slice(at + 1)); break }
    const [, name, inline] = /^--?([^-=][^=]*)(?:=(.*))?$/s.exec(word) ?? []
    if (name === undefined) {
      if (!more) { positionals.push(...argv.slice(at)); break }
      positionals.push(word)
      continue
    }
    const flag = byName.get(name)
    if (flag === undefined) {
      if (name === 'help' || name === 'h') { asked ??= 'help'; continue }
      if (name === 'version' || name === 'v') { asked ??= 'version'; continue }
      throw usageError(`flag provided but not defined: -${name}`)
    }
    if (flag.kind === 'switch') {
      set.set(flag.name, inline === undefined ? true : toSwitch(inline, `-${name}`))
      continue
    }
    const text = inline ?? argv[++at]
    if (text === undefined) throw usageError(`flag needs an argument: -${name}`)
    set.set(flag.name, convert(flag, text, { where: `-${name}`, before: set.get(flag.name) }))
  }
  for (const flag of flags) {
    if (set.has(flag.name)) continue
    const variable = flag.env?.find((one) => env[one] !== undefined)
    const text = variable === undefined ? undefined : env[variable]
    if (text !== undefined && (text !== '' || flag.kind === 'string')) set.set(flag.name, convert(flag, text, { where: `environment variable ${variable}`, before: undefined }))
  }
  const missing = flags.filter((flag) => flag.required === true && !set.has(flag.name)).map(({ name }) => `"${name}"`)
  if (missing.length > 0 && asked === undefined) throw usageError(missing.length === 1 ? `Required flag ${missing[0]} not set` : `Required flags ${missing.join(', ')} not set`)
  return { values: new Values(flags, set, positionals), asked }
}

function convert(flag: Flag, text: string, { where, before }: { where: string; before: Value | undefined }): Value {
  switch (flag.kind) {
    case 'string': return text
    case 'switch': return toSwitch(text, where)
    case 'list': return [...Array.isArray(before) ? before : [], ...text.split(',').map((item) => item.trim())]
    case 'number': {
      const value = /^[+-]?(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : Number.NaN
      if (!Number.isSafeInteger(value)) throw usageError(`invalid value "${text}" for ${where}: not a whole number`)
      return value
    }
  }
}

/** SPEC: Go strconv.ParseBool. */
function toSwitch(text: string, where: string): boolean {
  if (['1', 't', 'T', 'true', 'TRUE', 'True'].includes(text)) return true
  if (['0', 'f', 'F', 'false', 'FALSE', 'False'].includes(text)) return false
  throw usageError(`invalid boolean value "${text}" for ${where}: write true or false`)
}

/** The help of one command. */
export function commandHelp(program: string, command: Command): string {
  const behind = command.argumentsUsage ?? '[arguments...]'
  return [
    'NAME:', `   ${program} ${command.name} - ${command.usage}`, '',
    'USAGE:', `   ${program} ${command.name} [command options] ${behind}`, '',
    'OPTIONS:', ...flagLines([...command.flags, HELP_FLAG]), '',
    ...(command.notes === undefined ? [] : ['NOTES:', indented(command.notes), '']),
    'EXAMPLES:', indented(command.examples), '',
  ].join('\n')
}

export const HELP_FLAG: Flag = { name: 'help', aliases: ['h'], kind: 'switch', usage: 'show help' }

/** One line a flag: names, value, usage, default, variable. */
export function flagLines(flags: readonly Flag[]): string[] {
  const shown = flags.filter(({ hidden }) => hidden !== true)
  const left = shown.map(({ name, aliases = [], kind }) => [name, ...aliases].map((one) => `${one.length === 1 ? '-' : '--'}${one}${kind === 'switch' ? '' : ' value'}`).join(', '))
  const width = Math.min(36, Math.max(...left.map((text) => text.length)))
  return shown.map(({ usage, value, env, required }, at) => {
    const notes = [
      ...(required === true ? ['required'] : []),
      ...(value === undefined || value === '' || value === false ? [] : [`default: ${JSON.stringify(value)}`]),
    ]
    const names = left[at]!
    const gap = names.length > width ? `\n   ${' '.repeat(width)}  ` : ' '.repeat(width - names.length + 2)
    return `   ${names}${gap}${usage}${notes.length === 0 ? '' : ` (${notes.join('; ')})`}${env === undefined ? '' : ` [${env.map((one) => `$${one}`).join(', ')}]`}`
  })
}

function indented(text: string): string {
  return text.trim().split('\n').map((line) => (line === '' ? '' : `   ${line}`)).join('\n')
}
