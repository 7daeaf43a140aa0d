// The states of a daemon and what moves it between them.
// SPEC: spec-surface.md B.2; nydus service/src/daemon.rs.

import { publish } from '../../core/diagnostics.ts'
import { CodedError } from '../../core/errors.ts'

/** As the API spells them. */
export type DaemonStateName = 'INIT' | 'READY' | 'RUNNING' | 'STOPPED'

export type LifeCycleEvent = 'mount' | 'start' | 'takeover' | 'stop' | 'exit'

// Row: in this state, these events lead there. Anything else is refused.
const TRANSITIONS: Readonly<Record<DaemonStateName, Partial<Record<LifeCycleEvent, DaemonStateName>>>> = {
  INIT: { mount: 'READY', takeover: 'READY', stop: 'STOPPED', exit: 'STOPPED' },
  READY: { start: 'RUNNING', stop: 'STOPPED', exit: 'STOPPED' },
  RUNNING: { stop: 'STOPPED', exit: 'STOPPED' },
  STOPPED: {},
}

/** The states of a daemon and the steps between them. SPEC: spec-surface.md B.2. */
export class LifeCycle {
  #state: DaemonStateName = 'INIT'

  get state(): DaemonStateName {
    return this.#state
  }

  /** @throws SERVE_STATE when the state does not allow the event */
  apply(event: LifeCycleEvent): void {
    const from = this.#state
    const to = this.check(event)
    this.#state = to
    publish('serve:daemon:state', { from, to })
  }

  /** Where `event` would lead; nothing happens yet. @throws SERVE_STATE when the state does not allow it */
  check(event: LifeCycleEvent): DaemonStateName {
    const to = TRANSITIONS[this.#state][event]
    if (!to) throw new CodedError('SERVE_STATE', `unexpected event ${event} in state ${this.#state}`, { event, state: this.#state })
    return to
  }
}
