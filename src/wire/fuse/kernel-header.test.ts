// The tables against the kernel's own header: a generated C file of _Static_asserts must compile, and one wrong offset must not.

import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { requires } from '../../../test/support/requires.ts'
import type { Row, Struct } from '../../core/struct.ts'
import * as change from './change.ts'
import { fuseDirent, fuseDirentPlus } from './directory.ts'
import { getxattrIn, getxattrOut, kstatfs, openOut, readIn } from './file.ts'
import { inHeader, outHeader } from './header.ts'
import { FUSE_INIT_FLAG, initIn, initOut } from './init.ts'
import { accessIn, attr, attrOut, batchForgetIn, entryOut, forgetOne, getattrIn, interruptIn } from './inode.ts'
import { notifyInvalEntryOut, notifyInvalInodeOut } from './notify.ts'
import { FUSE_NOTIFY, FUSE_OP } from './opcode.ts'

type AnyStruct = Struct<readonly Row[]>

const STRUCTS: readonly (readonly [cName: string, table: AnyStruct])[] = [
  ['fuse_in_header', inHeader], ['fuse_out_header', outHeader], ['fuse_init_in', initIn], ['fuse_init_out', initOut], ['fuse_attr', attr],
  ['fuse_attr_out', attrOut], ['fuse_entry_out', entryOut], ['fuse_getattr_in', getattrIn], ['fuse_access_in', accessIn],
  ['fuse_batch_forget_in', batchForgetIn], ['fuse_forget_one', forgetOne], ['fuse_interrupt_in', interruptIn], ['fuse_open_out', openOut], ['fuse_read_in', readIn],
  ['fuse_kstatfs', kstatfs], ['fuse_getxattr_in', getxattrIn], ['fuse_getxattr_out', getxattrOut], ['fuse_dirent', fuseDirent],
  ['fuse_direntplus', fuseDirentPlus], ['fuse_setattr_in', change.setattrIn], ['fuse_mknod_in', change.mknodIn], ['fuse_mkdir_in', change.mkdirIn],
  ['fuse_rename_in', change.renameIn], ['fuse_rename2_in', change.rename2In], ['fuse_link_in', change.linkIn], ['fuse_open_in', change.openIn],
  ['fuse_create_in', change.createIn], ['fuse_release_in', change.releaseIn], ['fuse_write_in', change.writeIn], ['fuse_write_out', change.writeOut],
  ['fuse_fsync_in', change.fsyncIn], ['fuse_fallocate_in', change.fallocateIn], ['fuse_lseek_in', change.lseekIn], ['fuse_lseek_out', change.lseekOut],
  ['fuse_copy_file_range_in', change.copyFileRangeIn], ['fuse_notify_inval_entry_out', notifyInvalEntryOut], ['fuse_notify_inval_inode_out', notifyInvalInodeOut],
]

/** One line a C field. Rows of one C field (its halves) share the first word of their doc. Reserved rows may have been given names since. */
function assertionsOf(cName: string, { rows, size }: AnyStruct): string[] {
  const fields = new Map<string, { offset: number; end: number }>()
  for (const [offset, name, type, doc] of rows) {
    if (name === '_unused' || name === '_padding') continue
    const field = doc.split(':')[0]!
    const first = fields.get(field)
    fields.set(field, { offset: first?.offset ?? offset, end: offset + type.size })
  }
  const lines = [...fields].map(([field, { offset, end }]) =>
    `_Static_assert(offsetof(struct ${cName}, ${field}) == ${offset} && sizeof(((struct ${cName} *)0)->${field}) == ${end - offset}, "${cName}.${field}");`)
  return [`_Static_assert(sizeof(struct ${cName}) == ${size}, "${cName}");`, ...lines]
}

function compiles(lines: readonly string[]): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'nydus-fuse-header-'))
  try {
    const input = ['#include <stddef.h>', '#include <linux/fuse.h>', ...lines].join('\n')
    return spawnSync('cc', ['-fsyntax-only', '-x', 'c', '-'], { input, cwd: directory, encoding: 'utf8' }).stderr
  } finally {
    rmSync(directory, { recursive: true })
  }
}

function hasCompiler(): boolean {
  try {
    execFileSync('cc', ['-fsyntax-only', '-x', 'c', '-'], { input: '#include <linux/fuse.h>\n', stdio: ['pipe', 'ignore', 'ignore'] })
    return true
  } catch {
    return false
  }
}

describe.runIf(requires.that(hasCompiler(), 'needs a C compiler and the kernel headers'))('FUSE tables (skipped without a C compiler and the kernel headers)', () => {
  it('have the offsets and sizes of <linux/fuse.h>', () => {
    expect(compiles(STRUCTS.flatMap(([cName, table]) => assertionsOf(cName, table)))).toBe('')
  })

  it('number operations, notifications and capabilities as <linux/fuse.h> does', () => {
    const enumerators = [
      ...Object.entries(FUSE_OP).map(([name, value]) => [`FUSE_${name}`, value] as const),
      ...Object.entries(FUSE_INIT_FLAG).map(([name, value]) => [`FUSE_${name}`, value] as const),
      // NOTIFY_RESEND came with 7.40, after the headers of Debian 12
      ...Object.entries(FUSE_NOTIFY).filter(([name]) => name !== 'RESEND').map(([name, value]) => [`FUSE_NOTIFY_${name}`, value] as const),
    ]
    expect(compiles(enumerators.map(([name, value]) => `_Static_assert(${name} == ${value}, "${name}");`))).toBe('')
  })

  it('are really compared: a moved field is reported by name', () => {
    const moved = assertionsOf('fuse_attr', attr).map((line) => line.replace('mode) == 60', 'mode) == 64'))
    expect(compiles(moved)).toMatch(/fuse_attr\.mode/)
  })
})
