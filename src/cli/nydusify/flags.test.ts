import { describe, expect, it } from 'vitest'
import { checkCommand } from './check-command.ts'
import { convertCommand } from './convert-command.ts'
import { type Flag, commandHelp, isUsageError, parseFlags } from './flags.ts'
import { mountCommand } from './mount-command.ts'
import { lineOf } from './progress.ts'
import { durationMs } from './registry-flags.ts'

const flags: readonly Flag[] = [
  { name: 'source', kind: 'string', required: true, env: ['SOURCE'], usage: '' },
  { name: 'oci', kind: 'switch', env: ['OCI'], usage: '' },
  { name: 'count', aliases: ['n'], kind: 'number', value: 3, env: ['COUNT'], usage: '' },
  { name: 'path', kind: 'list', env: ['PATHS'], usage: '' },
]
const parse = (argv: readonly string[], env: NodeJS.ProcessEnv = {}) => parseFlags(flags, argv, { env, more: true }).values

describe('parseFlags', () => {
  it.each([
    ['--source a --oci --count 5', 'a', true, 5], ['-source=a -oci=false -n 0x10', 'a', false, 16], ['--source=a=b', 'a=b', false, 3], ['--source a --oci=1', 'a', true, 3],
  ])('reads %s as Go does', (line, source, oci, count) => {
    const values = parse(line.split(' '))
    expect([values.text('source'), values.isOn('oci'), values.number('count')]).toEqual([source, oci, count])
  })

  it('takes the environment where the command line says nothing', () => {
    const values = parse(['--count', '9'], { SOURCE: 'env', OCI: 'true', COUNT: '1', PATHS: 'a, b' })
    expect([values.text('source'), values.isOn('oci'), values.number('count'), values.list('path')]).toEqual(['env', true, 9, ['a', 'b']])
    expect(parse(['--source', 's', '--oci=false'], { OCI: 'true' }).isOn('oci')).toBe(false)
    expect(parse(['--source', 's'], { OCI: '', COUNT: '' }).number('count')).toBe(3)
  })

  it('collects lists and positionals, and ends at --', () => {
    const values = parse(['--path', 'a', 'x', '--path=b,c', '--source', 's', '--', '--oci'])
    expect([values.list('path'), values.positionals, values.isOn('oci')]).toEqual([['a', 'b', 'c'], ['x', '--oci'], false])
  })

  it.each([
    [['--nope'], 'flag provided but not defined: -nope'], [['--source'], 'flag needs an argument: -source'], [[], 'Required flag "source" not set'],
    [['--source', 'a', '--oci=maybe'], 'invalid boolean value "maybe" for -oci'], [['--source', 'a', '--count', 'x'], 'invalid value "x" for -count'],
  ])('refuses %j', (argv, message) => {
    let caught: unknown
    try { parse(argv) } catch (error) { caught = error }
    expect(isUsageError(caught)).toBe(true)
    expect(String(caught)).toContain(message)
  })

  it('asks for nothing when help is wanted', () => {
    expect(parseFlags(flags, ['--help'], { env: {}, more: true }).asked).toBe('help')
  })
})

describe('commands', () => {
  // SPEC: spec-surface.md C.1: the number of flags of each command.
  it.each([[convertCommand, 42], [checkCommand, 15], [mountCommand, 10]] as const)('have upstream\'s flags', (command, count) => {
    expect(command.flags).toHaveLength(count)
    expect(new Set(command.flags.flatMap(({ name, aliases = [] }) => [name, ...aliases])).size).toBeGreaterThanOrEqual(count)
  })

  it('teach by examples and hide what is deprecated', () => {
    const help = commandHelp('nydusify', convertCommand)
    expect(help).toContain('EXAMPLES:')
    expect(help).toContain('[$BUILD_CACHE_MAX_RECORDS]')
    expect(help).not.toContain('--docker-v2-format')
  })
})

describe('durationMs', () => {
  it.each([['5s', 5000], ['1m30s', 90_000], ['1.5s', 1500], ['100ms', 100], ['0', 0], ['2h', 7_200_000]])('%s', (text, ms) => expect(durationMs(text, 'x')).toBeCloseTo(ms))
  it.each(['', '5', 's', '-1s', '5 s'])('refuses "%s"', (text) => expect(() => durationMs(text, 'x')).toThrow(/duration/))
})

describe('lineOf', () => {
  it('shows phase, part, rate and time left', () => {
    const MiB = 2 ** 20
    expect(lineOf('sha256:0123456789abcdef', { phase: 'pull', bytes: 5 * MiB, totalBytes: 10 * MiB, startedMs: 1000 }, 2000)).toBe('0123456789ab  pull     [=========>          ]  5.0/10.0 MiB  5.0 MiB/s  1s left')
    expect(lineOf('sha256:0123456789abcdef', { phase: 'convert', bytes: 5 * MiB, totalBytes: 0, startedMs: 1000 }, 2000)).toBe('0123456789ab  convert  5.0 MiB  5.0 MiB/s')
    expect(lineOf('sha256:0123456789abcdef', { phase: 'reused', bytes: MiB, totalBytes: MiB, startedMs: 0 }, 0)).toBe('0123456789ab  reused   1.0 MiB')
  })
})
