// `nydus-image inspect`: one request, or a prompt.

import { createInterface } from 'node:readline/promises'
import type { Command } from 'commander'
import { CodedError } from '../../core/errors.ts'
import { Inspector } from './inspector.ts'
import { bootstrapArgument, loadBootstrap } from './load.ts'

/** Request mode prints the answer and nothing else, without a newline at the end: callers parse stdout and stderr together. */
export async function inspect(positional: string | undefined, command: Command): Promise<void> {
  const options = command.opts<{ readonly request?: string; readonly blobDir?: string }>()
  const view = await loadBootstrap(bootstrapArgument(command, positional))
  if (options.request === undefined) return await prompt(new Inspector(view, { requestMode: false }))
  const answer = new Inspector(view, { requestMode: true }).execute(options.request)
  process.stdout.write(answer.text)
  if (answer.unknown) throw new CodedError('BUILD_INVALID_OPTION', `--request '${options.request.trim()}' is not understood`, { request: options.request })
  if (!answer.exit) process.stdout.write(JSON.stringify(answer.json))
}

async function prompt(inspector: Inspector): Promise<void> {
  const lines = createInterface({ input: process.stdin, output: process.stdout, terminal: process.stdin.isTTY, prompt: 'Inspecting RAFS :> ' })
  lines.prompt()
  for await (const line of lines) {
    try {
      const answer = inspector.execute(line)
      if (answer.exit) break
      process.stdout.write(answer.text)
    } catch (error) {
      if (!(error instanceof CodedError)) throw error
      process.stdout.write(`${error.message} [${error.code}]\n`)
    }
    lines.prompt()
  }
  lines.close()
}
