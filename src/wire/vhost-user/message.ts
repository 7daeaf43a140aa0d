// Messages between a virtual machine monitor (front end) and a device in another process (back end), over a Unix socket.
// SPEC: QEMU docs/interop/vhost-user.rst.

import { size64, struct, u16, u32, u64, u8, reserved, type Decoded } from '../../core/struct.ts'

export const VHOST_USER = {
  GET_FEATURES: 1, SET_FEATURES: 2, SET_OWNER: 3, RESET_OWNER: 4, SET_MEM_TABLE: 5, SET_LOG_BASE: 6, SET_LOG_FD: 7, SET_VRING_NUM: 8, SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10, GET_VRING_BASE: 11, SET_VRING_KICK: 12, SET_VRING_CALL: 13, SET_VRING_ERR: 14, GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16, GET_QUEUE_NUM: 17, SET_VRING_ENABLE: 18, SET_BACKEND_REQ_FD: 21, GET_INFLIGHT_FD: 31, SET_INFLIGHT_FD: 32,
  RESET_DEVICE: 34, GET_MAX_MEM_SLOTS: 36, ADD_MEM_REG: 37, REM_MEM_REG: 38, SET_STATUS: 39, GET_STATUS: 40,
} as const

/** Bit 30 of the device features: the two sides speak of protocol features. */
export const VHOST_USER_F_PROTOCOL_FEATURES = 30
/** Protocol features, as bit numbers. */
export const PROTOCOL_F = { MQ: 0, REPLY_ACK: 3, BACKEND_REQ: 5, INFLIGHT_SHMFD: 12, RESET_DEVICE: 13, CONFIGURE_MEM_SLOTS: 15, STATUS: 16 } as const

export type MessageHeader = Decoded<typeof messageHeader>
export const messageHeader = struct('VhostUserHeader', 12, [
  [ 0, 'request',      u32, 'request: see VHOST_USER'],
  [ 4, 'flags',        u32, 'flags: bits 0 and 1 are the version, see MESSAGE_F'],
  [ 8, 'size',         u32, 'size: bytes of the payload that follows'],
])
export const MESSAGE_VERSION = 1
export const MESSAGE_F = { VERSION_MASK: 3, REPLY: 4, NEED_REPLY: 8 } as const
/** LIMIT: descriptors that travel with one message (VHOST_MEMORY_BASELINE_NREGIONS). */
export const MAX_MESSAGE_FDS = 8

/** Payload of most messages: a number, or 0 for success. */
export const u64Payload = struct('VhostUserU64', 8, [[0, 'value', u64, 'u64']])

export const vringState = struct('VhostVringState', 8, [
  [ 0, 'index',        u32, 'index: of the queue'],
  [ 4, 'value',        u32, 'num: entries, base or whether enabled'],
])
/** The first byte of a u64 payload that goes with a kick, call or error descriptor. */
export const vringFile = struct('VhostVringFile', 8, [
  [ 0, 'index',        u8,  'index: of the queue'],
  [ 1, 'flags',        u8,  'bit 0: no descriptor comes with it'],
  [ 2, '_padding',     reserved(6), 'zero'],
])
export const VRING_FILE_NO_FD = 1

/** Ring addresses are addresses in the front end's process. */
export const vringAddress = struct('VhostVringAddr', 40, [
  [ 0, 'index',        u32, 'index: of the queue'],
  [ 4, 'flags',        u32, 'flags: bit 0 asks for logging'],
  [ 8, 'descriptors',  size64, 'descriptor: descriptor table'],
  [16, 'used',         size64, 'used: used ring'],
  [24, 'available',    size64, 'available: available ring'],
  [32, '_log',         reserved(8), 'log'],
])

export const memoryTable = struct('VhostUserMemory', 8, [
  [ 0, 'count',        u32, 'nregions: regions that follow'],
  [ 4, '_padding',     reserved(4), 'padding'],
])
export type MemoryRegion = Decoded<typeof memoryRegion>
export const memoryRegion = struct('VhostUserMemoryRegion', 32, [
  [ 0, 'guest',        size64, 'guest_phys_addr: first guest-physical address'],
  [ 8, 'size',         size64, 'memory_size: bytes'],
  [16, 'user',         size64, 'userspace_addr: the same in the front end\'s process'],
  [24, 'offset',       size64, 'mmap_offset: where it begins in its file'],
])
/** ADD_MEM_REG and REM_MEM_REG: padding, then one region. */
export const memoryRegionAt = 8

export const inflight = struct('VhostUserInflight', 24, [
  [ 0, 'size',         size64, 'mmap_size: bytes of the shared region'],
  [ 8, 'offset',       size64, 'mmap_offset: where it begins in its file'],
  [16, 'queues',       u16, 'num_queues'],
  [18, 'queueSize',    u16, 'queue_size: entries of each queue'],
  [20, '_padding',     reserved(4), 'padding'],
])
