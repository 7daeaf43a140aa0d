// Runs the suite of nydus-ts/conformance under vitest.

import { afterAll, describe, it } from 'vitest'
import { backendConformance, type ConformanceOptions, type MakeBackend } from '../../src/library/conformance.ts'

export function backendSuite(name: string, make: MakeBackend, options: ConformanceOptions = {}): void {
  describe(name, () => {
    const suite = backendConformance(make, options)
    afterAll(() => suite.close())
    for (const { name: rule, run } of suite.cases) it(rule, run)
  })
}
