// SIGINT and SIGTERM as an AbortSignal: the first one ends the work in good order, the second one at once.

import os from 'node:os'

/** The reason of the abort. */
export class Interrupted extends Error {
  readonly exitCode: number

  constructor(name: 'SIGINT' | 'SIGTERM' | 'SIGHUP') {
    super(`ended by ${name}`)
    this.exitCode = 128 + os.constants.signals[name]
  }
}

/** Runs `action` with a signal that aborts on SIGINT, SIGTERM and SIGHUP. Rejects with `Interrupted` when that was why it failed. */
export async function untilSignal<T>(action: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController()
  const names = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  const onSignal = (name: NodeJS.Signals) => {
    const known = names.find((one) => one === name)
    if (known === undefined) return
    const reason = new Interrupted(known)
    if (controller.signal.aborted) process.exit(reason.exitCode)
    controller.abort(reason)
  }
  for (const name of names) process.on(name, onSignal)
  try {
    return await action(controller.signal)
  } catch (error) {
    throw controller.signal.aborted ? controller.signal.reason : error
  } finally {
    for (const name of names) process.off(name, onSignal)
  }
}
