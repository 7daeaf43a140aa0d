// Split virtqueues, as driver and device share them in guest memory.
// SPEC: virtio 1.2, section 2.7; linux include/uapi/linux/virtio_ring.h.

import { struct, u16, u32, type Decoded } from '../../core/struct.ts'

/** Feature bits of a device, as bit numbers. */
export const VIRTIO_F = { INDIRECT_DESC: 28, EVENT_IDX: 29, VERSION_1: 32 } as const

export type Descriptor = Decoded<typeof descriptor>
export const descriptor = struct('VirtqDescriptor', 16, [
  [ 0, 'addressLow',   u32, 'addr: guest-physical address'],
  [ 4, 'addressHigh',  u32, 'addr: high word'],
  [ 8, 'length',       u32, 'len: bytes'],
  [12, 'flags',        u16, 'flags: see DESCRIPTOR_F'],
  [14, 'next',         u16, 'next: index of the chain\'s next descriptor, with NEXT'],
])
export const DESCRIPTOR_F = { NEXT: 1, WRITE: 2, INDIRECT: 4 } as const

/** Followed by `num` ring entries of AVAIL_ENTRY bytes and, with EVENT_IDX, by used_event (le16). */
export const availHead = struct('VirtqAvail', 4, [
  [ 0, 'flags',        u16, 'flags: see AVAIL_F'],
  [ 2, 'index',        u16, 'idx: where the driver puts the next entry, counted without end'],
])
export const AVAIL_F = { NO_INTERRUPT: 1 } as const
/** Bytes of an available entry: the head of a chain. */
export const AVAIL_ENTRY = 2

/** Followed by `num` used elements and, with EVENT_IDX, by avail_event (le16). */
export const usedHead = struct('VirtqUsed', 4, [
  [ 0, 'flags',        u16, 'flags: see USED_F'],
  [ 2, 'index',        u16, 'idx: where the device puts the next element, counted without end'],
])
export const USED_F = { NO_NOTIFY: 1 } as const
export const usedElement = struct('VirtqUsedElement', 8, [
  [ 0, 'id',           u32, 'id: head of the chain that is done'],
  [ 4, 'length',       u32, 'len: bytes written to it'],
])
/** Bytes of used_event and avail_event. */
export const EVENT_SIZE = 2

/** LIMIT: entries of a queue. SPEC: 2.7, a power of two up to 32768; QEMU's vhost-user-fs goes to 1024. */
export const MAX_QUEUE_SIZE = 1024

/** Bytes of the three parts of a queue of `num` entries, events included. */
export const ringSizes = (num: number): { readonly descriptors: number; readonly available: number; readonly used: number } => ({
  descriptors: num * descriptor.size,
  available: availHead.size + num * AVAIL_ENTRY + EVENT_SIZE,
  used: usedHead.size + num * usedElement.size + EVENT_SIZE,
})
