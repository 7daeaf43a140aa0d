import { describe, expect, it } from 'vitest'
import { machineLimits } from './machine.ts'

const GiB = 2 ** 30
const host = { processors: 16, memory: 64 * GiB }
const limits = (files: Readonly<Record<string, string>>) => machineLimits((file) => files[file], host)

describe('machineLimits', () => {
  it.each([
    ['no cgroup', {}, host],
    ['v2: quota and memory', { '/proc/self/cgroup': '0::/a/b\n', '/sys/fs/cgroup/a/b/cpu.max': '150000 100000\n', '/sys/fs/cgroup/a/b/memory.max': `${GiB}\n` }, { processors: 2, memory: GiB }],
    ['v2: the parent is tighter', { '/proc/self/cgroup': '0::/a/b\n', '/sys/fs/cgroup/a/b/cpu.max': 'max 100000\n', '/sys/fs/cgroup/a/cpu.max': '50000 100000\n' }, { processors: 1, memory: host.memory }],
    ['v2 in a container', { '/proc/self/cgroup': '0::/\n', '/sys/fs/cgroup/memory.high': `${2 * GiB}\n`, '/sys/fs/cgroup/memory.max': 'max\n' }, { processors: 16, memory: 2 * GiB }],
    ['v1', { '/proc/self/cgroup': '4:cpu,cpuacct:/x\n3:memory:/x\n', '/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us': '400000', '/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us': '100000', '/sys/fs/cgroup/memory/x/memory.limit_in_bytes': `${4 * GiB}` }, { processors: 4, memory: 4 * GiB }],
    ['v1 without a quota', { '/proc/self/cgroup': '4:cpu:/x\n', '/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us': '-1', '/sys/fs/cgroup/cpu/x/cpu.cfs_period_us': '100000' }, host],
  ] as const)('%s', (_, files, expected) => expect(limits(files)).toEqual(expected))

  it('is never less than one processor', () => {
    expect(limits({ '/proc/self/cgroup': '0::/\n', '/sys/fs/cgroup/cpu.max': '1000 100000' }).processors).toBe(1)
  })
})
