import { describe, expect, it } from 'vitest'
import { checked, checkedBytes, errnoName, hasErrno, syscallError } from './errno.ts'

describe('errno', () => {
  it('names both signs', () => {
    expect(errnoName(-2)).toBe('ENOENT')
    expect(errnoName(2)).toBe('ENOENT')
    expect(errnoName(4711)).toBe('errno 4711')
  })

  it('turns a negative result into a coded error that shows the path as text', () => {
    expect(() => checked(-1, 'mknod', '/x\xff')).toThrow(expect.objectContaining({
      code: 'NATIVE_SYSCALL', message: 'mknod /x\\xff: EPERM', context: { syscall: 'mknod', errno: 1, errnoName: 'EPERM', path: '/x\\xff' },
    }))
    expect(checked(7, 'open')).toBe(7)
    expect(() => checkedBytes(-61, 'lgetxattr')).toThrow(/^lgetxattr: ENODATA$/)
    expect(checkedBytes(new Uint8Array(2), 'x')).toHaveLength(2)
  })

  it('tells errors apart by name', () => {
    expect(hasErrno(syscallError(-2, 'stat'), 'ENOENT')).toBe(true)
    expect(hasErrno(syscallError(-2, 'stat'), 'EPERM')).toBe(false)
    expect(hasErrno(new Error('ENOENT'), 'ENOENT')).toBe(false)
  })
})
