// The small native programs beside the addon: where they are.

import { existsSync } from 'node:fs'
import path from 'node:path'
import { CodedError } from '../core/errors.ts'
import { platformName } from './load.ts'

const PACKAGE_ROOT = path.resolve(import.meta.dirname, '../..')

/** Path of the program `name`: of a checkout's build, else of the package. @throws NATIVE_UNAVAILABLE */
export function nativeProgram(name: 'nydusd-holder' | 'nydusd-keeper'): string {
  const platform = platformName()
  const candidates = [path.join(PACKAGE_ROOT, 'build', name), path.join(PACKAGE_ROOT, 'prebuilt', platform, name)]
  const found = candidates.find((candidate) => existsSync(candidate))
  if (found === undefined) throw new CodedError('NATIVE_UNAVAILABLE', `no ${name} for ${platform} (tried ${candidates.join(', ')})`, { platform })
  return found
}
