/** Sizes in bytes. */
export const KiB = 1024
export const MiB = 1024 * KiB
export const GiB = 1024 * MiB

/** Smallest multiple of `unit` (a positive integer, any size below 2^53) that is at least `value`. */
export function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit
}

/** Largest multiple of `unit` that is at most `value`. */
export function roundDown(value: number, unit: number): number {
  return Math.floor(value / unit) * unit
}

/** Whether `value` is a power of two within 1..2^30. */
export function isPowerOfTwo(value: number): boolean {
  return Number.isInteger(value) && value > 0 && value <= 0x4000_0000 && (value & (value - 1)) === 0
}
