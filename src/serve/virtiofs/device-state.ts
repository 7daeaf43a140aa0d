// What a device's successor needs to go on under the same machine: how its front end has set it up, beside the descriptors that came with that.

import type { MemoryRegion } from '../../wire/vhost-user/message.ts'
import { badState, type Fields, fits, isCount, isFlag, isListOf, isMissingOr, seal, unseal } from '../daemon/sealed.ts'
import type { InflightShape } from './inflight.ts'
import type { RingAddresses } from './virtqueue.ts'

const FORMAT = 'nydus-ts virtiofs device'
/** Raised when an older reader could misunderstand a newer state. */
const VERSION = 1

/** `kick`, `call`, `error` and every `fd` are places in the list of descriptors, -1 for none. */
interface SavedQueue {
  readonly size: number
  readonly base: number
  readonly addresses: RingAddresses | undefined
  readonly enabled: boolean
  readonly kick: number
  readonly call: number
  readonly error: number
}

export interface SavedDevice {
  readonly protocolFeatures: number
  readonly eventIndex: boolean
  readonly regions: readonly (MemoryRegion & { readonly fd: number })[]
  readonly queues: readonly SavedQueue[]
  readonly inflight: (InflightShape & { readonly fd: number }) | undefined
  /** Where front ends connect, and the one that has; -1 where a holder has them. */
  readonly listener: number
  readonly frontEnd: number
}

/** A state with its descriptors. */
export interface HeldDevice { readonly bytes: Uint8Array; readonly fds: readonly number[] }

/** State → bytes, without its descriptors. */
export function encodeDevice(state: SavedDevice): Buffer {
  return seal(FORMAT, VERSION, state)
}

/** @throws SERVE_BAD_STATE_FILE for anything but what `encodeDevice` wrote */
export function decodeDevice(bytes: Uint8Array): SavedDevice {
  const { body } = unseal(bytes, FORMAT, [VERSION])
  if (!fits(DEVICE, body)) throw badState('a field of the device is missing or of the wrong type')
  return body
}

const isPlace = (value: unknown): boolean => value === -1 || isCount(value)
const ADDRESSES: Fields<RingAddresses> = { descriptors: isCount, available: isCount, used: isCount }
const REGION: Fields<SavedDevice['regions'][number]> = { guest: isCount, size: isCount, user: isCount, offset: isCount, fd: isPlace }
const QUEUE: Fields<SavedQueue> = {
  size: isCount, base: isCount, addresses: isMissingOr((value) => fits(ADDRESSES, value)), enabled: isFlag, kick: isPlace, call: isPlace, error: isPlace,
}
const INFLIGHT: Fields<NonNullable<SavedDevice['inflight']>> = { queues: isCount, queueSize: isCount, size: isCount, offset: isCount, own: isFlag, fd: isPlace }
const DEVICE: Fields<SavedDevice> = {
  protocolFeatures: isCount, eventIndex: isFlag, regions: isListOf((value) => fits(REGION, value)), queues: isListOf((value) => fits(QUEUE, value)),
  inflight: isMissingOr((value) => fits(INFLIGHT, value)), listener: isPlace, frontEnd: isPlace,
}
