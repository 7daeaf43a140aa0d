// Member names and link targets: brought to one form, or refused.

import { type Fail, MAX_LINK_TARGET, MAX_NAME, MAX_PATH } from './entry.ts'

const SLASH = 0x2f
const DOT = 0x2e

/**
 * `./a//b/` → `a/b`; `/` and `.` → ''. Fails with TAR_UNSAFE_PATH for a `..` component, with TAR_INVALID for a NUL byte,
 * a component over 255 bytes or a path over 4096. One pass, and no new string, for names that are in order.
 */
export function normalizePath(raw: string, fail: Fail): string {
  let tidy = true
  let start = 0
  for (let i = 0; i <= raw.length; i++) {
    const code = i === raw.length ? SLASH : raw.charCodeAt(i)
    if (code === 0) throw fail('its name holds a NUL byte')
    if (code !== SLASH) continue
    const length = i - start
    if (length === 0 || (length === 1 && raw.charCodeAt(start) === DOT)) tidy = false
    else if (length === 2 && raw.charCodeAt(start) === DOT && raw.charCodeAt(start + 1) === DOT) throw fail('a ".." component leads out of the archive', 'TAR_UNSAFE_PATH')
    else if (length > MAX_NAME) throw fail(`a name of ${length} bytes; file systems take ${MAX_NAME}`)
    start = i + 1
  }
  const path = tidy ? raw : raw.split('/').filter((component) => component !== '' && component !== '.').join('/')
  if (path.length > MAX_PATH) throw fail(`a path of ${path.length} bytes; systems take ${MAX_PATH}`)
  return path
}

/** The target of a symbolic link, as it stands. Fails with TAR_INVALID when it is empty, has a NUL byte or is over 4095 bytes. */
export function symlinkTarget(raw: string, fail: Fail): string {
  if (raw === '') throw fail('a symbolic link without a target')
  if (raw.length > MAX_LINK_TARGET) throw fail(`a link target of ${raw.length} bytes; systems take ${MAX_LINK_TARGET}`)
  if (raw.includes('\0')) throw fail('its link target holds a NUL byte')
  return raw
}
