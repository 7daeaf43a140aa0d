// Preloaded into a daemon (node --import): its clock of the day is ahead by the milliseconds that the file NYDUS_TEST_CLOCK has. What measures time has
// the monotonic clock, which no administrator and no time server changes.
import { readFileSync } from 'node:fs'

const file = process.env['NYDUS_TEST_CLOCK']
const RealDate = Date
let ahead = 0
const look = () => { ahead = Number(readFileSync(file, 'utf8')) || 0 }
look()
setInterval(look, 20).unref()

globalThis.Date = class extends RealDate {
  constructor(...given) {
    if (given.length === 0) super(RealDate.now() + ahead)
    else super(...given)
  }

  static now() {
    return RealDate.now() + ahead
  }
}
