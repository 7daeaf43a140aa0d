// In whose name this thread makes files. The kernel has decided that the caller may; what is left is to whom the result belongs.

import { syscallError } from '../../native/errno.ts'
import { native } from '../../native/load.ts'
import { ERRNO } from '../errno.ts'

/** Who asks, and what his umask takes from a mode where the directory has no default ACL. */
export interface Caller { readonly uid: number; readonly gid: number; readonly umask: number }

/** The identity of this thread. */
export class Identity {
  readonly #isPrivileged: boolean
  readonly #addon = native()

  /** Gives the thread a umask of its own. `isPrivileged`: otherwise everything is made in the process's own name. */
  constructor(isPrivileged: boolean) {
    this.#isPrivileged = isPrivileged
    const result = this.#addon.ownUmask()
    if (result < 0) throw syscallError(result, 'unshare')
  }

  /** Does `make` in the caller's name. Negative errno: its own, or EPERM where the name cannot be taken. */
  as({ uid, gid, umask }: Caller, make: () => number): number {
    const own = this.#addon.umask(umask & 0o777)
    try {
      return uid === 0 && gid === 0 ? make() : this.#named(uid, gid, make)
    } finally {
      this.#addon.umask(own)
    }
  }

  #named(uid: number, gid: number, make: () => number): number {
    if (!this.#isPrivileged) return make()
    const taken = this.#addon.actAs(uid, gid)
    const result = taken < 0 ? -ERRNO.EPERM : make()
    if (this.#addon.actAs(0, 0) < 0) throw new Error('this thread cannot be root again')
    return result
  }
}
