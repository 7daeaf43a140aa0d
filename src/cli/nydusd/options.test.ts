import { describe, expect, it } from 'vitest'
import { helpText, parseArguments } from './options.ts'

const parse = (text: string): ReturnType<typeof parseArguments> => parseArguments(text === '' ? [] : text.split(' '))

describe('the nydusd command line', () => {
  it('serves through FUSE with and without the subcommand, in upstream\'s spellings', () => {
    for (const text of ['-M /m -B b -C c', 'fuse --mountpoint /m --bootstrap b --config c', 'fuse --mountpoint=/m -Bb -C=c', '-C c fuse -M /m -B b']) {
      const command = parse(text)
      expect(command.kind, text).toBe('fuse')
      if (command.kind === 'fuse') expect([command.values.get('mountpoint'), command.values.get('bootstrap'), command.values.get('config')]).toEqual(['/m', 'b', 'c'])
    }
  })

  it('takes the argv of the snapshotter', () => {
    const command = parse('fuse --thread-num 8 --id d1 --supervisor /s.sock --config c --bootstrap b --mountpoint /m --apisock /a.sock --log-level debug '
      + '--log-rotation-size 100 --log-file /l/nydusd.log --prefetch-files p --backend-source http://x --failover-policy flush')
    expect(command.kind).toBe('fuse')
    if (command.kind === 'fuse') expect(command.values.get('fuse-threads')).toBe('8')
  })

  it.each([
    ['', /required arguments were not provided:\n {2}--mountpoint <mountpoint>/],
    ['-M /m --nonsense', /unexpected argument '--nonsense' found/],
    ['-M', /a value is required for '--mountpoint <mountpoint>'/],
    ['-M /m -M /n', /cannot be used multiple times/],
    ['-M /m -D d -C c', /'--localfs-dir <localfs-dir>' cannot be used with '--config <config>'/],
    ['-M /m --id x', /required arguments were not provided:\n {2}--supervisor <path>/],
    ['-M /m --prefetch-files f', /--bootstrap <bootstrap>/],
    ['-M /m -l loud', /possible values: trace, debug, info, warn, error/],
    ['-M /m --fuse-threads 0', /0 is not in 1\.\.=1024/],
    ['-M /m --writable=yes', /unexpected value 'yes'/],
    ['bogus', /unexpected argument 'bogus' found/],
  ])('refuses `%s`', (text, message) => {
    const command = parse(text)
    expect(command.kind).toBe('usage')
    if (command.kind === 'usage') expect(command.message).toMatch(message)
  })

  it('takes a socket for a virtual machine, with and without the word', () => {
    for (const text of ['virtiofs --sock s', '--sock s']) expect(parse(text)).toMatchObject({ kind: 'virtiofs' })
    for (const text of ['virtiofs --sock s --self-heal --supervisor p --id i', 'virtiofs --sock s --shared-dir d --supervisor p --id i', 'virtiofs', 'virtiofs --sock s --mountpoint m', 'fuse --sock s --mountpoint m']) expect(parse(text)).toMatchObject({ kind: 'usage' })
  })

  it('knows the services that come later by name', () => {
    for (const name of ['singleton', 'nbd']) expect(parse(`${name} --sock s`)).toEqual({ kind: 'later', name })
  })

  it('explains every option and gives an example', () => {
    expect(helpText()).toMatch(/--bootstrap <bootstrap>[\s\S]*--log-level <level> +trace[\s\S]*Examples:/)
  })
})
